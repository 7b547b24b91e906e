from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.evaluation.returns import episode_table, quantile, standard_deviation, summarize

MakeEpisode = Callable[..., Episode]


def test_summary_by_hand(make_episode: MakeEpisode) -> None:
    episodes = [
        make_episode([1.0]),
        make_episode([1.0, 1.0]),
        make_episode([4.0, 0.0, -1.0]),
        make_episode([0.0, 10.0]),
    ]
    summary = summarize(episodes, gamma=0.5)
    # 2 and 3 are averaged; the winsorized variance is (4 / 4) / 3; 12.706 is the quantile of Student's t for 1.
    margin = 12.7062 * math.sqrt(1 / 3) * math.sqrt(3 / 2)
    assert summary.pop("return_iqm_low") == pytest.approx(2.5 - margin, abs=1e-4)
    assert summary.pop("return_iqm_high") == pytest.approx(2.5 + margin, abs=1e-4)
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
    assert {"return_iqm_low", "return_iqm_high"}.isdisjoint(summary)


def test_equal_returns_of_a_few_episodes_do_not_promise_a_certain_mean(make_episode: MakeEpisode) -> None:
    keys = {"return_iqm_low", "return_iqm_high"}
    assert keys.isdisjoint(summarize([make_episode([37.0])] * 8, gamma=1.0))
    summary = summarize([make_episode([37.0])] * 12, gamma=1.0)
    assert {summary[key] for key in keys} == {37.0}


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


def test_success_rates_have_intervals_of_the_episodes_that_report_success(make_episode: MakeEpisode) -> None:
    outcomes = [(True, True)] * 8 + [(None, None)] * 3
    summary = summarize([make_episode(success=last, success_any=any_) for last, any_ in outcomes], gamma=1.0)
    wilson = (8 / (8 + 1.959964**2), 1.0)
    assert (summary["success_rate_low"], summary["success_rate_high"]) == pytest.approx(wilson)
    assert (summary["success_any_rate_low"], summary["success_any_rate_high"]) == pytest.approx(wilson)


def test_success_rates_are_left_out_if_no_episode_reports_success(make_episode: MakeEpisode) -> None:
    assert not [key for key in summarize([make_episode(), make_episode()], gamma=1.0) if key.startswith("success")]


def test_a_return_that_is_nan_gives_a_nan_mean_and_no_error(make_episode: MakeEpisode) -> None:
    summary = summarize([make_episode([math.nan]), make_episode([1.0])], gamma=1.0)
    assert math.isnan(summary["return_mean"])
    assert summary["length_mean"] == 1.0


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([-INF, 1.0, 2.0, 3.0], {"mean": -INF, "std": INF, "p25": -INF, "median": 1.5, "p75": 2.25, "iqm": 1.5}),
        ([0.0, 1.0, 2.0, INF, INF], {"mean": INF, "std": INF, "p25": 1.0, "median": 2.0, "p75": INF, "iqm": INF}),
        ([-INF, -INF, 1.0, 2.0], {"mean": -INF, "std": INF, "p25": -INF, "median": -INF, "p75": 1.25, "iqm": -INF}),
        ([-INF, 4.0, INF], {"mean": NAN, "std": INF, "p25": -INF, "median": 4.0, "p75": INF, "iqm": NAN}),
        ([-INF], {"mean": -INF, "std": NAN, "p25": -INF, "median": -INF, "p75": -INF, "iqm": -INF}),
        ([NAN, 1.0, -INF], dict.fromkeys(("mean", "std", "p25", "median", "p75", "iqm"), NAN)),
    ],
)
def test_infinite_returns_have_every_statistic_that_is_defined(
    make_episode: MakeEpisode, returns: list[float], expected: dict[str, float]
) -> None:
    summary = summarize([make_episode([each]) for each in returns], gamma=0.9)
    assert {name: summary[f"return_{name}"] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_returns_beyond_the_range_of_sums_are_infinite_without_a_warning(make_episode: MakeEpisode) -> None:
    assert summarize([make_episode([1e308])] * 8, gamma=1.0)["return_mean"] == INF


def test_an_infinite_return_that_is_cut_leaves_the_interval_of_the_others(make_episode: MakeEpisode) -> None:
    finite, infinite = (
        summarize([make_episode([each]) for each in (worst, *range(1, 8))], gamma=0.9) for worst in (-1e6, -INF)
    )
    keys = ("return_iqm", "return_iqm_low", "return_iqm_high")
    assert [infinite[key] for key in keys] == [finite[key] for key in keys]


def test_the_standard_deviation_divides_by_the_number_of_samples() -> None:
    assert standard_deviation(np.array([1.0, 3.0])) == 1.0  # sqrt(2) with the divisor n - 1
    assert standard_deviation(np.array([5.0])) == 0.0


@pytest.mark.parametrize("count", [1, 2, 5, 8, 30])
def test_quantiles_of_finite_samples_are_those_of_numpy(count: int) -> None:
    samples = np.random.default_rng(count).normal(size=count)
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert quantile(samples, fraction) == np.quantile(samples, fraction)
        largest_is_infinite = np.append(samples, INF)
        if count > 1 and fraction * count <= count - 1:
            assert quantile(largest_is_infinite, fraction) == pytest.approx(
                np.quantile(np.append(samples, 1e6), fraction)
            )


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
