from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import trim_mean

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.evaluation.returns import bootstrap_interval, episode_table, interquartile_mean, summarize

MakeEpisode = Callable[..., Episode]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([7.0], 7.0),
        ([0.0, 10.0], 5.0),
        ([0.0, 1.0, 5.0], (0.25 * 0 + 1 + 0.25 * 5) / 1.5),
        ([0.0, 1.0, 3.0, 100.0], 2.0),
        ([0.0, 1.0, 2.0, 4.0, 100.0], (0.75 * 1 + 2 + 0.75 * 4) / 2.5),
        ([-50.0, 0.0, 1.0, 2.0, 3.0, 1e9], (0.5 * 0 + 1 + 2 + 0.5 * 3) / 3),
        ([4.0] * 9, 4.0),
    ],
)
def test_interquartile_mean_by_hand(samples: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(samples)) == pytest.approx(expected)


@pytest.mark.parametrize("count", [4, 8, 12, 40, 400])
def test_interquartile_mean_equals_trimmed_mean_of_scipy_if_a_quarter_is_an_integer(count: int) -> None:
    samples = np.random.default_rng(count).normal(size=count)
    assert interquartile_mean(samples) == pytest.approx(trim_mean(samples, 0.25))


@pytest.mark.parametrize("count", range(1, 12))
def test_interquartile_mean_is_invariant_to_order_and_equivariant_to_shift_and_scale(count: int) -> None:
    rng = np.random.default_rng(count)
    samples = rng.normal(size=count)
    middle = float(interquartile_mean(samples))
    assert interquartile_mean(rng.permutation(samples)) == pytest.approx(middle)
    assert interquartile_mean(3 * samples - 5) == pytest.approx(3 * middle - 5)
    assert samples.min() <= middle <= samples.max()


def test_interquartile_mean_averages_only_the_last_axis() -> None:
    samples = np.array([[0.0, 1.0, 3.0, 100.0], [1.0, 1.0, 1.0, 1.0]])
    assert interquartile_mean(samples).tolist() == [2.0, 1.0]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 30])
def test_bootstrap_interval_contains_the_interquartile_mean(count: int) -> None:
    for seed in range(10):
        samples = np.random.default_rng(seed).exponential(size=count)
        low, high = bootstrap_interval(samples, draws=500)
        assert low <= interquartile_mean(samples) <= high


def test_bootstrap_interval_is_deterministic_and_does_not_use_the_global_random_state() -> None:
    samples = np.random.default_rng(0).normal(size=30)
    before = np.random.get_state()[1].copy()  # noqa: NPY002  # the global state must not move
    assert bootstrap_interval(samples) == bootstrap_interval(samples)
    assert bootstrap_interval(samples) != bootstrap_interval(samples, seed=1)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002  # see above


def test_bootstrap_interval_widens_with_confidence_and_narrows_with_samples() -> None:
    samples = np.random.default_rng(0).normal(size=400)

    def width(of: np.ndarray, confidence: float) -> float:
        low, high = bootstrap_interval(of, confidence=confidence, draws=500)
        return high - low

    assert 0 < width(samples, 0.5) < width(samples, 0.95) < width(samples[:40], 0.95)


def test_bootstrap_interval_of_equal_samples_is_a_point() -> None:
    assert bootstrap_interval(np.full(6, 3.0), draws=50) == (3.0, 3.0)


def test_bootstrap_interval_has_its_nominal_coverage() -> None:
    # With two samples a resample has the means 0, 5 and 10 with probabilities 1/4, 1/2 and 1/4.
    samples = np.array([0.0, 10.0])
    assert bootstrap_interval(samples, confidence=0.40) == (5.0, 5.0)
    assert bootstrap_interval(samples, confidence=0.60) == (0.0, 10.0)


def test_summary_by_hand(make_episode: MakeEpisode) -> None:
    episodes = [
        make_episode([1.0]),
        make_episode([1.0, 1.0]),
        make_episode([4.0, 0.0, -1.0]),
        make_episode([0.0, 10.0]),
    ]
    summary = summarize(episodes, gamma=0.5)
    low, high = summary.pop("return_iqm_low"), summary.pop("return_iqm_high")
    assert 1.0 <= low <= 2.5 <= high <= 10.0
    assert summary == pytest.approx(
        {
            "return_mean": 4.0,
            "return_std": math.sqrt((9 + 4 + 1 + 36) / 4),
            "return_min": 1.0,
            "return_max": 10.0,
            "return_median": 2.5,
            "return_p25": 1.75,
            "return_p75": 4.75,
            "return_iqm": 2.5,
            "return_discounted_mean": (1.0 + 1.5 + 3.75 + 5.0) / 4,
            "length_mean": 2.0,
            "episodes_count": 4.0,
        }
    )


def test_summary_of_one_episode_is_its_return(make_episode: MakeEpisode) -> None:
    summary = summarize([make_episode([-2.0, -1.0])], gamma=1.0)
    middle = {key: value for key, value in summary.items() if key.startswith("return_") and key != "return_std"}
    assert set(middle.values()) == {-3.0}
    assert summary["return_std"] == 0.0


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([True, False, True, True], 0.75),
        ([False, False], 0.0),
        ([True, None, False, None], 0.5),
    ],
)
def test_success_rate_averages_the_episodes_that_report_success(
    make_episode: MakeEpisode, outcomes: list[bool | None], expected: float
) -> None:
    assert summarize([make_episode(success=each) for each in outcomes], gamma=1.0)["success_rate"] == expected


def test_the_rate_of_episodes_with_any_success_is_a_number_of_its_own(make_episode: MakeEpisode) -> None:
    outcomes = [(False, True), (True, True), (False, False), (None, None)]
    summary = summarize([make_episode(success=last, success_any=any_) for last, any_ in outcomes], gamma=1.0)
    assert (summary["success_rate"], summary["success_any_rate"]) == pytest.approx((1 / 3, 2 / 3))


def test_success_rates_are_left_out_if_no_episode_reports_success(make_episode: MakeEpisode) -> None:
    assert {"success_rate", "success_any_rate"}.isdisjoint(summarize([make_episode(), make_episode()], gamma=1.0))


def test_a_return_that_is_nan_gives_a_nan_mean_and_no_error(make_episode: MakeEpisode) -> None:
    summary = summarize([make_episode([math.nan]), make_episode([1.0])], gamma=1.0)
    assert math.isnan(summary["return_mean"])
    assert summary["length_mean"] == 1.0


def test_table_has_one_row_per_episode_in_order(make_episode: MakeEpisode) -> None:
    episodes = [
        make_episode([1.0, 2.0, 4.0], seed=30, success=True),
        make_episode([1.0], seed=31, terminated=False, truncated=True, success=False),
        make_episode([2.0, 2.0], terminated=False, truncated=True, cut_at=2),
    ]
    table = episode_table(episodes, gamma=0.5)
    assert table.columns == ("episode", "seed", "return", "discounted_return", "length", "ended", "success")
    assert list(table.rows) == [
        (0, 30, 7.0, 3.0, 3, "terminated", True),
        (1, 31, 1.0, 1.0, 1, "truncated", False),
        (2, None, 4.0, 3.0, 2, "cut at 2 steps", None),
    ]
