"""Step limits are found wherever an environment says them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.environments.step_limit import step_limits
from rlwandb_callbacks.evaluation.step_limit import StepLimit
from rlwandb_callbacks.testing import CorridorEnv


class Attribute(CorridorEnv):
    """Corridor with a limit as an attribute, as in MiniGrid."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        vars(self).update(attributes)


def limited(limit: int) -> gym.Env:
    return gym.wrappers.TimeLimit(CorridorEnv(), limit)


@pytest.mark.parametrize(
    ("make", "limits"),
    [
        (lambda: gym.make("CartPole-v1"), (500,)),
        (lambda: gym.make("CartPole-v1", max_episode_steps=70), (70,)),
        (lambda: gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"), (500,)),
        (lambda: gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point"), (500,)),
        (lambda: gym.vector.SyncVectorEnv([lambda: limited(9), lambda: limited(7)]), (7, 9)),
        (lambda: gym.wrappers.FlattenObservation(limited(30)), (30,)),
        (lambda: Attribute(max_steps=np.int64(40)), (40,)),
        (lambda: Attribute(max_steps=None, max_cycles=True, max_episode_steps=-1, max_path_length=12.5), ()),
        (CorridorEnv, ()),
    ],
)
def test_limits_of_all_layers_are_found(make: Any, limits: tuple[int, ...]) -> None:
    env = make()
    assert step_limits(env) == limits
    env.close()


def episode(length: int, *, cut: bool = False) -> Episode:
    return Episode(actions=np.zeros(length), rewards=np.zeros(length), terminated=not cut, truncated=cut)


def test_a_limit_that_an_episode_exceeds_is_none() -> None:
    limit = StepLimit()
    assert limit.update([episode(5)], known=(10, 50)) == 10
    assert limit.update([episode(20)], known=(10, 50)) == 50
    assert limit.update([episode(5)], known=(10, 50)) == 50


def test_without_a_known_limit_the_longest_cut_episode_so_far_shows_it() -> None:
    limit = StepLimit()
    assert limit.update([episode(900)], known=()) is None
    assert limit.update([episode(3, cut=True), episode(70, cut=True)], known=()) == 70
    resumed = StepLimit()
    resumed.restore(limit.state())
    assert resumed.update([episode(5)], known=()) == 70
