"""Seeds are logged where they decide how an episode begins."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from evaluations import evaluated
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from rlwandb_callbacks.evaluation.vector_env import reset_each
from rlwandb_callbacks.testing import CorridorEnv


def right(observations: Any) -> Any:
    return np.ones(len(observations), np.int64)


class Pool(VectorEnv[Any, Any, Any]):
    """Vector without single environments, whose picture shows its random state ``delay`` steps after a reset."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012  # as in Gymnasium
    num_envs = 2
    single_observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    observation_space = batch_space(single_observation_space, 2)
    single_action_space = spaces.Discrete(2)
    action_space: Any = single_action_space  # that of one environment, as in EnvPool

    def __init__(self, *, delay: int, takes_seeds: bool) -> None:
        self.delay, self.takes_seeds, self.generator = delay, takes_seeds, np.random.default_rng(3)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if isinstance(seed, list):
            raise TypeError("Unsupported seed type")
        self.steps = 0
        if self.takes_seeds:
            self.generator = np.random.default_rng(seed)
        self.state = self.generator.random((2, 1), np.float32)
        return self.observe(), {}

    def observe(self) -> Any:
        return self.state if self.steps >= self.delay else np.zeros((2, 1), np.float32)

    def step(self, actions: Any) -> Any:
        assert np.shape(actions) == (2,)
        self.steps += 1
        ended = np.full(2, self.steps >= 20)
        return self.observe(), np.ones(2), ended, np.zeros(2, bool), {}

    def close(self, **options: Any) -> None: ...


@pytest.mark.parametrize("delay", [0, 10])
@pytest.mark.parametrize("takes_seeds", [True, False])
def test_a_vector_has_seeds_if_two_resets_with_them_and_some_steps_agree(delay: int, takes_seeds: bool) -> None:
    episodes, warnings = evaluated(right, env=lambda: Pool(delay=delay, takes_seeds=takes_seeds), episodes=2, seed=5)
    assert [episode.seed for episode in episodes] == ([5, 6] if takes_seeds else [None, None])
    assert ["starts differently" in warning for warning in warnings] == [True] * (not takes_seeds)


def test_seeds_are_given_as_an_array_to_a_vector_that_refuses_a_list() -> None:
    pool = Pool(delay=0, takes_seeds=True)
    observations, is_seeded = reset_each(pool, [5, 6])
    assert is_seeded
    assert np.array_equal(observations, np.random.default_rng(np.array([5, 6])).random((2, 1), np.float32))


class OwnRandomness(CorridorEnv):
    """Corridor whose first observation comes from a generator of its own."""

    generator = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed)
        return observation * np.float32(self.generator.random()), info


class Rounded(CorridorEnv):
    """Corridor that starts from another last bit at each reset."""

    resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed)
        Rounded.resets += 1
        return observation + np.float32(1e-8) * Rounded.resets, info


class WithoutNumber(CorridorEnv):
    """Corridor that starts from an observation without a number."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed)
        return np.full_like(observation, np.nan), info


@pytest.mark.parametrize("make", [OwnRandomness, lambda: SyncVectorEnv([OwnRandomness] * 2)])
def test_an_environment_that_ignores_seeds_has_none(make: Any) -> None:
    episodes, warnings = evaluated(right, env=make, episodes=3)
    assert [episode.seed for episode in episodes] == [None] * 3
    (warning,) = warnings
    assert "starts differently when it is reset twice with the same seed" in warning
    assert "super().reset(seed=seed)" in warning


@pytest.mark.parametrize("make", [CorridorEnv, Rounded, WithoutNumber, lambda: SyncVectorEnv([CorridorEnv] * 2)])
def test_an_environment_that_takes_seeds_has_them(make: Any) -> None:
    episodes, warnings = evaluated(right, env=make, episodes=3, seed=7)
    assert ([episode.seed for episode in episodes], warnings) == ([7, 8, 9], [])
