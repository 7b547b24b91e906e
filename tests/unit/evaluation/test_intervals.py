from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest, norm, trim_mean

from rlwandb_callbacks.evaluation.intervals import interquartile_mean, iqm_interval, wilson_interval


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([7.0], 7.0),
        ([0.0, 10.0], 5.0),
        ([0.0, 0.0, 9.0], 3.0),
        ([0.0, 1.0, 3.0, 100.0], 2.0),
        ([10.0, 0.0, 1.0, 0.0, 1.0], 2 / 3),
        ([-50.0, 0.0, 1.0, 2.0, 3.0, 1e9], 1.5),
        ([4.0] * 9, 4.0),
    ],
)
def test_interquartile_mean_by_hand(samples: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(samples)) == pytest.approx(expected)


@pytest.mark.parametrize("count", [*range(1, 14), 100, 401])
def test_interquartile_mean_equals_the_trimmed_mean_of_scipy(count: int) -> None:
    samples = np.random.default_rng(count).normal(size=count)
    assert interquartile_mean(samples) == pytest.approx(trim_mean(samples, 0.25))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([-math.inf, 1.0, 2.0, 3.0], 1.5),
        ([1.0, math.inf, 2.0, -math.inf], 1.5),
        ([-math.inf, -math.inf, 1.0, 2.0], -math.inf),
        ([-math.inf, 0.0, 1.0], -math.inf),
        ([0.0, 1.0, 2.0, math.nan], math.nan),
        ([-math.inf, -math.inf, math.inf, math.inf], math.nan),
    ],
)
def test_an_infinite_sample_counts_only_if_it_is_not_cut(samples: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(samples)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("samples", [[37.0], [1.0, 2.0], [1.0, 2.0, 3.0]])
def test_fewer_than_four_samples_have_no_interval(samples: list[float]) -> None:
    assert iqm_interval(np.array(samples)) is None


def test_interval_by_hand() -> None:
    # 3, 4 and 5 are averaged; 3, 3, 4, 5, 5 has the variance 4 / 4; 4.303 is the quantile of Student's t for 2.
    margin = 4.302653 * math.sqrt(4 / (3 * 2))
    assert iqm_interval(np.array([6.0, 2.0, 4.0, 3.0, 5.0])) == pytest.approx((4 - margin, 4 + margin))
    # The outer quarter does not matter.
    assert iqm_interval(np.array([1e9, -math.inf, 4.0, 3.0, 5.0])) == pytest.approx((4 - margin, 4 + margin))


def test_interval_of_two_values_follows_from_the_share_of_each() -> None:
    # 5 of 10: Wilson's interval is 0.2366 to 0.7634, and a share p from 0.25 to 0.75 has the mean (p - 0.25) / 0.5.
    assert iqm_interval(np.array([-1.0, 3.0] * 5)) == pytest.approx((-1.0, 3.0))
    # 10 of 20: 0.2993 to 0.7007.
    assert iqm_interval(np.array([0.0, 1.0] * 10)) == pytest.approx((2 * 0.29930 - 0.5, 2 * 0.70070 - 0.5), abs=1e-4)
    # 7 of 8: 0.5291 to 0.9776.
    assert iqm_interval(np.array([1.0] * 7 + [0.0])) == pytest.approx((2 * 0.52911 - 0.5, 1.0), abs=1e-4)


def test_equal_samples_have_an_interval_once_they_leave_less_than_a_quarter_to_others() -> None:
    # At least n / (n + 1.96 ** 2) of all samples are equal: 0.741 with 11 and 0.757 with 12.
    assert iqm_interval(np.full(11, 37.0)) is None
    assert iqm_interval(np.full(12, 37.0)) == (37.0, 37.0)


def test_interval_of_equal_samples_with_a_tail_reaches_into_the_tail() -> None:
    # 2 of 20 are below 500: at most 0.3010 of all, of which a quarter is cut, the best of them last.
    interval = iqm_interval(np.array([100.0, 400.0] + [500.0] * 18))
    assert interval == pytest.approx((500 - 100 * (0.30102 - 0.25) / 0.5, 500.0), abs=0.01)
    # Nothing is known of the other side: as many of eight samples may be above 500.
    assert iqm_interval(np.array([100.0, 400.0] + [500.0] * 6)) is None


@pytest.mark.parametrize("count", range(4, 41))
def test_interval_contains_the_interquartile_mean(count: int) -> None:
    for ones in range(1, count):
        samples = np.array([0.0] * (count - ones) + [1.0] * ones)
        low, high = iqm_interval(samples) or (math.nan, math.nan)
        assert 0 <= low <= interquartile_mean(samples) <= high <= 1


@pytest.mark.parametrize("infinity", [-math.inf, math.inf])
def test_samples_that_are_not_finite_leave_a_finite_interval_or_none(infinity: float) -> None:
    for others in ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [infinity, 1.0, 2.0], [infinity] * 3, [math.nan, 1.0, 2.0]):
        for repeats in (1, 2, 5):
            interval = iqm_interval(np.array([infinity, *others] * repeats))
            assert interval is None or all(map(math.isfinite, interval))


def capped(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draws returns as of a policy that survives the time limit of 500 steps in 90 % of the episodes."""
    return np.minimum(500.0, rng.normal(600.0, 78.0, size=count))


CAP = float(norm.ppf(0.4))


def often_capped(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draws returns of which 60 % are at the limit."""
    return np.minimum(CAP, rng.normal(size=count))


DRAWS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "normal": (lambda rng, count: rng.normal(size=count), 0.0),
    "two values, .5": (lambda rng, count: rng.binomial(1, 0.5, size=count) * 1.0, 0.5),
    "two values, .7": (lambda rng, count: rng.binomial(1, 0.7, size=count) * 1.0, 0.9),
    "two values, .9": (lambda rng, count: rng.binomial(1, 0.9, size=count) * 1.0, 1.0),
    "three values": (lambda rng, count: rng.integers(0, 3, size=count) * 1.0, 1.0),
    "capped": (capped, 500.0),
    # Twice the integral of the quantiles over the middle half, of which those above 0.4 are at the limit.
    "often capped": (often_capped, 2 * (norm.pdf(norm.ppf(0.25)) - norm.pdf(CAP) + 0.35 * CAP)),
    "Student's t, 2 degrees of freedom": (lambda rng, count: rng.standard_t(2, size=count), 0.0),
    # Twice the integral over the middle half, of -log(1 - u) and of exp(normal quantile of u).
    "exponential": (lambda rng, count: rng.exponential(size=count), 0.738376),
    "lognormal": (lambda rng, count: rng.lognormal(size=count), 1.072923),
}


@pytest.mark.parametrize("name", DRAWS)
def test_interval_covers_the_true_mean_of_planted_distributions(name: str) -> None:
    draw, truth = DRAWS[name]
    rng = np.random.default_rng(0)
    for count in (4, 5, 8, 12, 20, 32):
        intervals = [iqm_interval(draw(rng, count)) for _ in range(400)]
        known = [interval for interval in intervals if interval is not None]
        assert len(known) > 100
        assert np.mean([low <= truth <= high for low, high in known]) > (0.86 if count < 8 else 0.89)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 20, 1000])
def test_wilson_interval_equals_that_of_scipy(count: int) -> None:
    for successes in range(0, count + 1, max(1, count // 20)):
        expected = binomtest(successes, count).proportion_ci(method="wilson")
        assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high))


def test_wilson_interval_stays_within_its_limits() -> None:
    assert wilson_interval(8, 8) == pytest.approx((8 / (8 + 1.959964**2), 1.0))
    assert [wilson_interval(n, n).high for n in range(1, 50)] == [1.0] * 49
    assert [wilson_interval(0, n).low for n in range(1, 50)] == [0.0] * 49
