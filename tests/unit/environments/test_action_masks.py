"""Models that take action masks, and environments with the method of sb3-contrib."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import nn

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Episode, Probabilities
from rlwandb_callbacks.environments.wrappers import AnyVectorWrapper
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state

ACTIONS = 4


class Lock(gym.Env[Any, Any]):
    """Environment with one valid action per state, which differs from step to step; the seed sets the length."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(ACTIONS)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.length = 0, 2 + int(self.np_random.integers(6))
        return np.zeros(1, np.float32), {}

    @property
    def allowed(self) -> int:
        return (3 * self.steps + 1) % ACTIONS

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.allowed)
        self.steps += 1
        return np.zeros(1, np.float32), reward, self.steps >= self.length, False, {}


class MaskedLock(Lock):
    """Environment whose masks raise after the end of an episode."""

    def action_masks(self) -> list[bool]:
        assert self.steps < self.length, "the mask of a final state is not needed"
        return [action == self.allowed for action in range(ACTIONS)]


class LenientLock(Lock):
    """Environment with masks in all states."""

    def action_masks(self) -> list[bool]:
        return [action == self.allowed for action in range(ACTIONS)]


class VectorWithMasks(AnyVectorWrapper):
    """Vector with the method ``action_masks``."""

    def action_masks(self) -> np.ndarray:
        return np.eye(ACTIONS, dtype=np.int8)[[env.unwrapped.allowed for env in self.env.envs]]


class Maskable:
    """Model with the interface of sb3-contrib's maskable ones; takes the last valid action, 3 without masks."""

    observation_space, action_space, device = Lock.observation_space, Lock.action_space, "cpu"

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        probabilities = self.get_distribution(torch.as_tensor(observation), action_masks).distribution.probs
        return (ACTIONS - 1 - probabilities.flip(1).argmax(1)).numpy(), state

    def obs_to_tensor(self, observation: Any) -> tuple[torch.Tensor, bool]:
        return torch.as_tensor(observation), True

    def get_distribution(self, obs: torch.Tensor, action_masks: Any = None) -> Any:
        logits = torch.zeros(len(obs), ACTIONS)
        if action_masks is not None:
            logits[~torch.as_tensor(action_masks).reshape(logits.shape)] = -1e8
        return SimpleNamespace(distribution=torch.distributions.Categorical(logits=logits))

    def predict_values(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(obs), 1)


def wrapped() -> Any:
    return gym.wrappers.TimeLimit(gym.wrappers.ClipReward(LenientLock(), 0.0, 1.0), 50)


def episodes_in(env: Callable[[], Any], **settings: Any) -> list[Episode]:
    evaluation = EvaluationConfig(env=env, policy=Maskable(), episodes=5, **settings)
    with preserved_state(nn.Module(), seed=0):
        return [each.episode for each in Evaluator(WandbRLConfig(evaluation=evaluation), nn.Module()).play()]


@pytest.mark.parametrize(
    "env",
    [
        MaskedLock,
        wrapped,
        lambda: SyncVectorEnv([wrapped] * 3),
        lambda: AsyncVectorEnv([wrapped] * 2),
        lambda: SyncVectorEnv([wrapped] * 3, autoreset_mode=AutoresetMode.DISABLED),
        lambda: VectorWithMasks(SyncVectorEnv([Lock] * 3)),
    ],
    ids=["single", "wrapped", "vector", "vector of subprocesses", "vector without autoreset", "vector with the method"],
)
def test_only_valid_actions_are_taken_and_shown(env: Any) -> None:
    for episode in episodes_in(env):
        assert episode.rewards.tolist() == [1.0] * episode.length
        assert isinstance(episode.scores, Probabilities)
        assert np.array_equal(episode.scores.values, np.eye(ACTIONS)[episode.actions])


def test_masks_are_not_read_from_environments_whose_episode_ended() -> None:
    episodes = episodes_in(MaskedLock, num_envs=3)
    assert len({episode.length for episode in episodes}) > 1
    assert all(episode.total_return == episode.length for episode in episodes)


@pytest.mark.parametrize(
    "env",
    [Lock, lambda: SyncVectorEnv([Lock] * 2), lambda: AsyncVectorEnv([Lock] * 2)],
    ids=["single", "sync", "async"],
)
def test_environment_without_masks_is_played_with_a_warning(env: Any) -> None:
    with pytest.warns(UserWarning, match=r"has no method action_masks.*ActionMasker"):
        episodes = episodes_in(env)
    assert {action for episode in episodes for action in episode.actions} == {ACTIONS - 1}
