"""Evaluation episodes that are the same for each seed."""

from __future__ import annotations

import random
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from caught_warnings import package_warnings
from gymnasium.vector import SyncVectorEnv

from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyValidatedQ


class FixedStart(CorridorEnv):
    """Starts in the same state for each seed."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=3, options=options)


class OwnGenerator(gym.Env[Any, Any]):
    """Draws its states from a generator that is seeded when the environment is made."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.render_mode = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.value = self.random.random()
        return np.full(2, self.value, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), self.value, True, False, {}


class Player(TinyValidatedQ):
    """Walks right, or at random."""

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[0.0, 1.5]]).expand(len(observations), 2)

    def stays(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.5, 0.0]]).expand(len(observations), 2)

    def sampled(self, observations: torch.Tensor) -> Any:
        return torch.distributions.Categorical(logits=torch.zeros(len(observations), 2))


def evaluate(fit: Any, env: Any, **settings: Any) -> tuple[MemoryTracker, list[str]]:
    tracker = MemoryTracker()
    cfg = {
        "on_error": "raise",
        "video_logger": False,
        "evaluation": {"env": env, "policy": "policy", "episodes": 5, **settings},
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Player(batches=1), EvaluationCallback(cfg, tracker=tracker), max_epochs=2)
    return tracker, [text for text in package_warnings(caught) if "episodes" in text and "differ" in text + "differ"]


@pytest.mark.parametrize("env", [FixedStart, lambda: SyncVectorEnv([FixedStart] * 2)])
def test_identical_episodes_are_said_once_with_the_remedy(fit: Any, env: Any) -> None:
    tracker, warned = evaluate(fit, env)
    assert tracker.column("eval/return_std") == [0.0, 0.0]
    (warning,) = warned
    for part in ("All 5 evaluation episodes are identical", "super().reset(seed=seed)", "episodes=1", "deterministic"):
        assert part in warning


def test_environments_that_repeat_their_own_sequence_are_noticed(fit: Any) -> None:
    _, (warning,) = evaluate(fit, OwnGenerator, episodes=6, num_envs=3)
    assert "Only 2 of 6 evaluation episodes differ from each other" in warning


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        (CorridorEnv, {}),
        (FixedStart, {"episodes": 1}),
        (CorridorEnv, {"policy": "stays", "max_steps": 9}),  # corridors differ in the part that is not seen
        (lambda: SyncVectorEnv([CorridorEnv] * 2), {"policy": "stays", "max_steps": 9}),
        (FixedStart, {"policy": "sampled", "deterministic": False}),
    ],
)
def test_episodes_that_differ_are_no_reason_to_warn(fit: Any, env: Any, settings: dict[str, Any]) -> None:
    assert [text for text in evaluate(fit, env, **settings)[1] if "evaluation episodes" in text] == []
