from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.episode_choice import best_median_worst, choose

NAN = math.nan


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([5.0], {"best": 0}),
        ([NAN], {"best": 0}),
        ([1.0, 2.0], {"best": 1, "worst": 0}),
        ([2.0, 1.0], {"best": 0, "worst": 1}),
        ([10.0, 30.0, 20.0], {"best": 1, "median": 2, "worst": 0}),
        ([40.0, 10.0, 30.0, 20.0], {"best": 0, "median": 3, "worst": 1}),
        ([3.0, 1.0, 2.0, 5.0, 4.0], {"best": 3, "median": 0, "worst": 1}),
        ([7.0, 7.0], {"best": 1, "worst": 0}),
        ([7.0, 7.0, 7.0, 7.0], {"best": 3, "median": 1, "worst": 0}),
        ([1.0, 9.0, 1.0, 1.0], {"best": 1, "median": 2, "worst": 0}),
        ([2.0, NAN, 1.0], {"best": 0, "median": 2, "worst": 1}),
        ([NAN, 1.0], {"best": 1, "worst": 0}),
        ([NAN, NAN, -1e300], {"best": 2, "median": 1, "worst": 0}),
        ([math.inf, 1.0, -math.inf], {"best": 0, "median": 1, "worst": 2}),
    ],
)
def test_best_median_and_worst(returns: list[float], expected: dict[str, int]) -> None:
    assert best_median_worst(returns) == expected


def test_labels_are_ordered_from_best_to_worst() -> None:
    assert list(best_median_worst([1.0, 2.0, 3.0])) == ["best", "median", "worst"]


@pytest.mark.parametrize("count", range(1, 6))
def test_labels_belong_to_different_episodes_despite_ties(count: int) -> None:
    for returns in itertools.product([0.0, 1.0, NAN], repeat=count):
        picked = best_median_worst(returns)
        assert len(picked) == len(set(picked.values())) == min(count, 3)


@pytest.mark.parametrize("count", range(3, 8))
def test_as_many_returns_lie_below_the_median_as_above_or_one_less(count: int) -> None:
    returns = np.random.default_rng(count).normal(size=count)
    median = returns[best_median_worst(returns)["median"]]
    below, above = int((returns < median).sum()), int((returns > median).sum())
    assert above - below == (count + 1) % 2


def test_many_equal_returns_keep_their_order() -> None:
    assert best_median_worst([0.0, 1.0] * 50) == {"best": 99, "median": 98, "worst": 0}


def test_the_order_of_episodes_is_irrelevant() -> None:
    returns = [4.0, -1.0, 7.5, 2.0, 3.0]
    expected = {label: returns[index] for label, index in best_median_worst(returns).items()}
    for shuffled in itertools.permutations(returns):
        assert {label: shuffled[index] for label, index in best_median_worst(shuffled).items()} == expected


def test_no_returns_are_an_error() -> None:
    with pytest.raises(ValueError, match="no episode to choose from"):
        best_median_worst([])


def test_nan_is_worse_than_minus_infinity() -> None:
    assert best_median_worst([float("nan"), -float("inf"), 0.0]) == {"best": 2, "median": 1, "worst": 0}


def make_episodes(*rows: tuple[float, int, bool | None]) -> list[Episode]:
    """Returns episodes with a return, a length and a success each."""
    return [
        Episode(
            actions=np.zeros(length),
            rewards=np.full(length, total / length),
            terminated=True,
            success=success,
            seed=row,
        )
        for row, (total, length, success) in enumerate(rows)
    ]


EPISODES = make_episodes((4.0, 2, False), (1.0, 8, True), (9.0, 4, True), (-3.0, 8, False), (2.0, 1, None))
NO_SUCCESSES = make_episodes((4.0, 2, None), (1.0, 8, None), (9.0, 4, None), (-3.0, 8, None), (2.0, 1, None))


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (["best", "median", "worst"], {"best": 2, "median": 4, "worst": 3}),
        (["worst"], {"worst": 3}),
        (["longest", "shortest", "best"], {"longest": 1, "shortest": 4, "best": 2}),
        (["failures"], {"failure_1": 3, "failure_2": 0}),
        (["successes", "best"], {"success_1": 2, "success_2": 1, "best": 2}),
        ([lambda episodes: [len(episodes) - 1, 0]], {"chosen_1": 4, "chosen_2": 0}),
        ([lambda episodes: range(5)], {"chosen_1": 0, "chosen_2": 1, "chosen_3": 2}),
        ([lambda episodes: {"odd one/out": np.int64(3)}], {"odd_one_out": 3}),
        ([lambda episodes: []], {}),
    ],
)
def test_episodes_are_selected_by_name(select: list[Any], expected: dict[str, int]) -> None:
    assert choose(EPISODES, select) == expected
    assert list(choose(EPISODES, select)) == list(expected)


def test_unreported_failures_lie_below_the_median_and_successes_above() -> None:
    assert choose(NO_SUCCESSES, ["failures", "successes"]) == {
        "failure_1": 3,
        "failure_2": 1,
        "success_1": 2,
        "success_2": 0,
    }


def test_equal_returns_are_neither_failures_nor_successes() -> None:
    assert choose(make_episodes((1.0, 1, None), (1.0, 2, None), (1.0, 3, None)), ["failures", "successes"]) == {}
    assert choose(make_episodes((1.0, 1, None)), ["failures", "successes"]) == {}


def test_one_reported_failure_is_enough() -> None:
    assert choose(make_episodes((5.0, 1, False), (1.0, 1, None)), ["failures", "successes"]) == {"failure_1": 0}


def test_at_most_limits_each_group() -> None:
    many = make_episodes(*((float(row), 1, False) for row in range(10)))
    assert choose(many, ["failures"]) == {"failure_1": 0, "failure_2": 1, "failure_3": 2}
    assert list(choose(many, ["failures", "random"], at_most=1)) == ["failure_1", "random_1"]
    assert len(choose(many, ["random"], at_most=20)) == 10


def test_random_episodes_are_distinct_and_depend_on_the_seed() -> None:
    many = make_episodes(*((float(row), 1, None) for row in range(50)))
    first, again, other = (choose(many, ["random"], seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first.values())) == 3


@pytest.mark.parametrize("result", [[5], [-1], "no", 3, {"a": 9}, {"a": [0, 1]}, None, ["x"], [float("inf")]])
def test_a_function_that_returns_no_indices_is_an_error(result: Any) -> None:
    def pick(episodes: Any) -> Any:
        return result

    with pytest.raises(ValueError, match=r"videos\.select: pick returned .* indices from 0 to 4"):
        choose(EPISODES, [pick])


def test_no_episodes_are_an_error() -> None:
    with pytest.raises(ValueError, match="no episode to choose from"):
        choose([], ["failures"])
