"""Evaluation follows the environment of the training: its settings, and its observation statistics."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation, NormalizeObservation
from gymnasium.wrappers import vector as vector_wrappers
from pytorch_lightning import LightningDataModule

from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.environments.statistics import training_statistics
from rlwandb_callbacks.testing import MemoryTracker, TinyValidatedQ


class LevelEnv(gym.Env[Any, Any]):
    """Environment whose episodes have as many steps as its level, and whose observations are normal around a center."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  # as in Gymnasium
    observation_space = spaces.Box(-1e6, 1e6, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, level: int = 2, center: float = 0.0, render_mode: str | None = None) -> None:
        self.level, self.center, self.render_mode, self.steps = level, center, render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def _observation(self) -> Any:
        return (self.center + self.np_random.normal(size=2)).astype(np.float32)

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._observation(), 1.0, self.steps >= self.level, False, {}

    def render(self) -> Any:
        return np.full((16, 16, 3), 20 * self.steps, np.uint8)


def zeros(observations: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(observations), 2)


def evaluations(fit: Any, module: Any, env: Any, policy: Any = zeros, **trainer: Any) -> list[dict[str, Any]]:
    """Trains, and returns the rows of the evaluations."""
    tracker = MemoryTracker()
    evaluation = {"env": env, "policy": policy, "episodes": 2, "max_steps": 50}
    cfg = {"on_error": "raise", "video_logger": policy is zeros, "evaluation": evaluation}
    callback = EvaluationCallback(cfg, tracker=tracker)
    fit(module, callback, num_sanity_val_steps=0, **trainer)
    return [row for row in tracker.by_update() if "eval/return_mean" in row]


class Curriculum(TinyValidatedQ):
    """Module that sets a level before fit, and raises it in training."""

    @classmethod
    def of(cls, env: Any) -> Any:
        module = cls(batches=4)
        module.env = env
        env.reset(seed=0)
        module.set_level(6)
        return module

    env: Any
    level: int

    def set_level(self, level: int) -> None:
        self.level = level
        self.make_current = partial(LevelEnv, level)
        if isinstance(self.env, gym.vector.VectorEnv):
            self.env.set_attr("level", level)
        else:
            self.env.unwrapped.level = level

    def make_env(self, render_mode: str | None = None) -> Any:
        return LevelEnv(self.level, render_mode=render_mode)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.env.step(self.env.action_space.sample())
        if batch_idx == 2:
            self.set_level(10)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("self.env", "made from its id"),
        ("self.env", "of a class"),
        ("self.env", "vector"),
        ("self.make_env", "of a class"),
        ("self.make_current", "of a class"),
    ],
)
def test_level_is_the_one_that_training_has_reached(fit: Any, path: str, kind: str) -> None:
    gym.register("Level-v0", LevelEnv)
    try:
        make: dict[str, Callable[[], Any]] = {
            "made from its id": lambda: gym.make("Level-v0"),
            "of a class": LevelEnv,
            "vector": lambda: gym.make_vec("Level-v0", 2, vectorization_mode="sync"),
        }
        rows = evaluations(fit, Curriculum.of(make[kind]()), path, val_check_interval=2)
    finally:
        del gym.registry["Level-v0"]
    assert [row["eval/return_mean"] for row in rows] == [6.0, 10.0]
    assert "length 10" in rows[1]["video/best"].caption


class Display(Curriculum):
    """Module whose environment gets a window while it trains, which cannot be copied."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 1:
            self.env.window = (each for each in ())
        return super().training_step(batch, batch_idx)


def test_environment_that_can_be_copied_no_longer_is_played_as_it_was_with_a_warning(fit: Any) -> None:
    with pytest.warns(UserWarning, match=r"LevelEnv cannot be copied as it is now, so evaluations play the copy"):
        rows = evaluations(fit, Display.of(LevelEnv()), "self.env", val_check_interval=2)
    assert [row["eval/return_mean"] for row in rows] == [6.0, 6.0]


def trained(env: Any, steps: int) -> Any:
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if isinstance(env, gym.Env) and (terminated or truncated):
            env.reset()
    return env


def normalized(center: float, steps: int = 100) -> Any:
    return trained(NormalizeObservation(LevelEnv(9, center)), steps)


class Holder(TinyValidatedQ):
    """Module whose policy notes the largest number that it sees."""

    def __init__(self) -> None:
        super().__init__(batches=1)
        self.largest = [0.0]

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        self.largest.append(float(observations.abs().max()))
        return zeros(observations)


FAR = partial(LevelEnv, 9, 100.0)
HOLDERS: dict[str, tuple[Callable[[], dict[str, Any]], Any, str]] = {
    "spare beside the vector of the training": (
        lambda: {
            "env": NormalizeObservation(FAR()),
            "train_envs": trained(vector_wrappers.NormalizeObservation(SyncVectorEnv([FAR] * 2)), 50),
        },
        FAR,
        "self.train_envs",
    ),
    "spare that was reset, and is named": (
        lambda: {"env": trained(NormalizeObservation(FAR()), 0), "train_envs": normalized(100.0)},
        "self.env",
        "self.train_envs",
    ),
    "named, and has seen less": (
        lambda: {"env": normalized(0.0, 500), "env_b": normalized(100.0)},
        "self.env_b",
        "self.env_b",
    ),
    "in an agent": (
        lambda: {"agent": SimpleNamespace(algo=SimpleNamespace(env=normalized(100.0)))},
        FAR,
        "self.agent.algo.env",
    ),
    "in a list": (lambda: {"workers": [SimpleNamespace(env=normalized(100.0))]}, FAR, "self.workers[0].env"),
    "in a dict": (lambda: {"pool": {"main": normalized(100.0)}}, FAR, "self.pool['main']"),
    "in a function": (lambda: {"step": partial(SimpleNamespace, normalized(100.0))}, FAR, "self.step[0]"),
    "inside a frame stack": (
        lambda: {"env": FrameStackObservation(normalized(100.0), 3)},
        lambda: FrameStackObservation(FAR(), 3),
        "self.env",
    ),
    "inside frame stacks of a vector": (
        lambda: {"env": FrameStackObservation(normalized(100.0), 3)},
        lambda: SyncVectorEnv([lambda: FrameStackObservation(FAR(), 3)] * 2),
        "self.env",
    ),
    "of other observations": (
        lambda: {"env": trained(NormalizeObservation(gym.make("CartPole-v1")), 300), "far": normalized(100.0)},
        FAR,
        "self.far",
    ),
}


@pytest.mark.filterwarnings("ignore:.*normalizes observations and evaluation.env does not")
@pytest.mark.parametrize("kind", HOLDERS)
def test_statistics_are_those_of_the_environment_that_is_trained_in(
    fit: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, env, source = HOLDERS[kind]
    module = Holder()
    vars(module).update(make())
    caplog.set_level(logging.INFO)
    (row,) = evaluations(fit, module, env, "policy")
    assert row["eval/return_mean"] == 9.0
    assert max(module.largest) < 6  # of 100 or more without normalization, or with that of another environment
    said = [text for text in caplog.messages if "running statistics" in text]
    assert said == [f"rlwandb: Evaluations normalize observations by the running statistics of {source}."]


class Playing(LightningDataModule):
    """Data module with the environment of the training."""

    def __init__(self) -> None:
        super().__init__()
        self.env = normalized(100.0)


def test_statistics_of_the_environment_of_a_data_module_are_found() -> None:
    found = training_statistics(SimpleNamespace(_trainer=SimpleNamespace(datamodule=Playing(), train_dataloader=None)))
    assert found is not None
    assert found[0] == "trainer.datamodule.env"
