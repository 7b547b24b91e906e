from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rlwandb_callbacks.core.select import extremes

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
def test_best_median_and_worst_by_hand(returns: list[float], expected: dict[str, int]) -> None:
    assert extremes(returns) == expected


def test_ranks_come_best_first() -> None:
    assert list(extremes([1.0, 2.0, 3.0])) == ["best", "median", "worst"]


@pytest.mark.parametrize("count", range(1, 6))
def test_each_rank_names_another_episode_whatever_the_ties(count: int) -> None:
    for returns in itertools.product([0.0, 1.0, NAN], repeat=count):
        picked = extremes(returns)
        assert len(picked) == len(set(picked.values())) == min(count, 3)


@pytest.mark.parametrize("count", range(3, 8))
def test_the_median_has_as_many_episodes_below_as_above_or_one_less(count: int) -> None:
    returns = np.random.default_rng(count).normal(size=count)
    median = returns[extremes(returns)["median"]]
    below, above = int((returns < median).sum()), int((returns > median).sum())
    assert above - below == (count + 1) % 2


def test_equal_returns_keep_their_order_however_many_there_are() -> None:
    assert extremes([0.0, 1.0] * 50) == {"best": 99, "median": 98, "worst": 0}


def test_the_order_of_episodes_does_not_matter() -> None:
    returns = [4.0, -1.0, 7.5, 2.0, 3.0]
    named = {rank: returns[index] for rank, index in extremes(returns).items()}
    for shuffled in itertools.permutations(returns):
        assert {rank: shuffled[index] for rank, index in extremes(shuffled).items()} == named


def test_no_episode_is_an_error() -> None:
    with pytest.raises(ValueError, match="no episode to choose from"):
        extremes([])


def test_an_episode_without_a_number_is_worse_than_one_that_lost_everything() -> None:
    assert extremes([float("nan"), -float("inf"), 0.0]) == {"best": 2, "median": 1, "worst": 0}
