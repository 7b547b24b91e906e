from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import ActionSpec, ContinuousActions, DiscreteActions
from rlwandb_callbacks.core.transitions import EpisodeSummaries, Transitions
from rlwandb_callbacks.core.values import Histogram, Scalar
from rlwandb_callbacks.maps.statistics import dataset_statistics

EPISODES = EpisodeSummaries(
    returns=np.array([1.0, 2.0, 6.0, np.nan]),
    lengths=np.array([2, 2, 3, 1]),
    terminated=np.array([True, True, False, False]),
    truncated=np.array([False, False, True, False]),
)


def sample_of(actions: Any, rewards: Any, spec: ActionSpec) -> Transitions:
    count = len(rewards)
    zeros = np.zeros(count, dtype=np.int64)
    return Transitions(
        observations=np.zeros((count, 2)), actions=np.asarray(actions), rewards=np.asarray(rewards, dtype=float),
        rows=np.arange(count),
        episodes=zeros, steps=zeros, lengths=zeros + 1, returns=np.zeros(count), action_spec=spec,
    )  # fmt: skip


def test_statistics_of_discrete_actions() -> None:
    statistics = dataset_statistics(
        EPISODES, sample_of([0, 2, 2], [0.0, 1.0, np.inf], DiscreteActions(("a", "b", "c")))
    )
    scalars = {key: value.value for key, value in statistics.items() if isinstance(value, Scalar)}
    expected = {"episodes": 4, "transitions": 8, "terminated_share": 0.5, "truncated_share": 0.25}
    expected |= {"return_mean": 3, "return_min": 1, "return_max": 6, "length_mean": 2, "length_min": 1, "length_max": 3}
    expected |= {"reward_mean": 0.5, "reward_std": 0.5, "reward_min": 0, "reward_max": 1}
    assert {key: scalars[f"dataset/{key}"] for key in expected} == expected
    histograms = {key: value.counts.tolist() for key, value in statistics.items() if isinstance(value, Histogram)}
    assert histograms["dataset/action_distribution"] == [1, 0, 2]
    sums = {key: sum(counts) for key, counts in histograms.items()}
    assert sums == {
        "dataset/return_distribution": 3,
        "dataset/length_distribution": 4,
        "dataset/reward_distribution": 2,
        "dataset/action_distribution": 3,
    }


def test_each_dimension_of_vector_actions_has_a_distribution() -> None:
    spec = ContinuousActions(np.full(2, -np.inf), np.full(2, np.inf))
    statistics = dataset_statistics(EPISODES, sample_of([[0.0, 5.0], [1.0, 5.0], [np.nan, 5.0]], [1.0, 1.0, 1.0], spec))
    assert statistics["dataset/action_0_distribution"].counts.sum() == 2
    equal = statistics["dataset/action_1_distribution"]
    middle = (equal.edges[:-1] + equal.edges[1:]) / 2
    assert middle[np.argmax(equal.counts)] == pytest.approx(5.0, abs=np.diff(equal.edges).max() / 2)
    assert (equal.counts.max(), equal.counts.sum()) == (3, 3)
    assert "dataset/action_distribution" not in statistics


def test_quantities_without_finite_numbers_are_left_out() -> None:
    spec = ContinuousActions(np.full(1, -np.inf), np.full(1, np.inf))
    nothing = EpisodeSummaries(
        returns=np.array([np.nan]), lengths=np.array([3]), terminated=np.array([False]), truncated=np.array([False])
    )
    statistics = dataset_statistics(nothing, sample_of([[np.nan]], [np.nan], spec))
    assert not {key for key in statistics if key.startswith(("dataset/return", "dataset/reward", "dataset/action"))}
    assert statistics["dataset/length_mean"].value == 3
