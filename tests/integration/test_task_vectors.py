"""Vectors whose environments are different tasks: numbers per task, and videos of the right one."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from caught_warnings import package_warnings
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.config import as_config
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ, read_offline_run


class Walk(gym.Env[Any, Any]):
    """Task of ``steps`` steps with reward 1, whose pictures have a color of its own."""

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    color = (200, 40, 40)

    def __init__(self, steps: int = 3, seed: int = 0, render_mode: str | None = None) -> None:
        self.steps, self.seed, self.render_mode = steps, seed, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.step_count, self.offset = 0, self.np_random.random()
        return np.full(1, self.offset, np.float32), {}

    def step(self, action: Any) -> Any:
        self.step_count += 1
        observation = np.full(1, self.step_count + self.offset, np.float32)
        return observation, 1.0, self.step_count >= self.steps, False, {"success": self.steps > 4}

    def render(self) -> Any:
        picture = np.full((32, 32, 3), self.color, np.uint8)
        picture[20:] = 90
        return picture


class LongWalk(Walk):
    """A longer task."""

    color = (40, 40, 200)

    def __init__(self, steps: int = 7, seed: int = 0, render_mode: str | None = None) -> None:
        super().__init__(steps, seed, render_mode)


class Player(TinyValidatedQ):
    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(observations), dtype=torch.long)


def color_of(path: Any, decode: Any) -> Any:
    return decode(path)[1][1, 8, 8].astype(int)


@pytest.mark.parametrize(
    ("kind", "mode"), [(SyncVectorEnv, AutoresetMode.DISABLED), (AsyncVectorEnv, AutoresetMode.NEXT_STEP)]
)
def test_numbers_per_task_and_videos_of_the_right_task(fit: Any, decode: Any, kind: Any, mode: AutoresetMode) -> None:
    def make_envs() -> Any:
        return kind([Walk, LongWalk, Walk], autoreset_mode=mode)

    cfg = {"on_error": "raise", "return_logger": False, "evaluation": {"episodes": 6}}
    callback = WandbRLCallback(cfg, env=make_envs, policy="policy")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Player(batches=1), callback)
    run = read_offline_run(callback.run_folder)
    (row,) = [row for row in run.history if "eval/return_mean" in row]
    assert row["eval/return_mean"] == pytest.approx((4 * 3 + 2 * 7) / 6)
    assert (row["eval/Walk/return_mean"], row["eval/LongWalk/return_mean"]) == (3, 7)
    assert (row["eval/Walk/episodes_count"], row["eval/LongWalk/episodes_count"]) == (4, 2)
    assert (row["eval/Walk/success_rate"], row["eval/LongWalk/length_mean"]) == (0, 7)
    (best,), (worst,) = run.media("video/best"), run.media("video/worst")
    assert np.abs(color_of(best, decode) - LongWalk.color).max() < 12
    assert np.abs(color_of(worst, decode) - Walk.color).max() < 12
    assert [text for text in package_warnings(caught) if "render" in text or "differently" in text] == []


@pytest.mark.parametrize(("world_size", "count"), [(2, 2), (2, 3), (3, 2)])
def test_ranks_together_play_each_task_equally_often(world_size: int, count: int) -> None:
    functions = [partial(Walk, steps) for steps in range(2, 2 + count)]
    cfg = as_config({"evaluation": {"env": lambda: SyncVectorEnv(functions), "policy": "policy", "episodes": 6}})
    played = []
    for rank in range(world_size):
        with preserved_state(module := Player(batches=1), seed=0, policy="policy"):
            played += Evaluator(cfg, module).play(range(6)[rank::world_size])
    episodes = sorted((each.episode for each in played), key=lambda episode: episode.seed)
    assert [episode.length for episode in episodes] == [2 + seed % count for seed in range(6)]
    assert [episode.task for episode in episodes] == [f"steps_{2 + seed % count}" for seed in range(6)]


def test_tasks_without_an_episode_are_named(fit: Any) -> None:
    cfg = {"on_error": "raise", "video_logger": False, "evaluation": {"episodes": 2}}
    functions = [lambda: Walk(2), lambda: Walk(3), lambda: Walk(5)]
    with pytest.warns(match="evaluation.episodes=2 leaves steps_5 without an episode. Set it to 3"):
        fit(Player(batches=1), WandbRLCallback(cfg, env=lambda: SyncVectorEnv(functions), policy="policy"))


def test_a_vector_of_one_task_has_no_numbers_per_task(fit: Any) -> None:
    cfg = {"on_error": "raise", "video_logger": False, "evaluation": {"episodes": 2}}
    callback = WandbRLCallback(cfg, env=lambda: SyncVectorEnv([CorridorEnv] * 2), policy="policy")
    fit(Player(batches=1), callback)
    keys = {key for row in read_offline_run(callback.run_folder).history for key in row}
    assert not [key for key in keys if key.startswith("eval/") and key.count("/") > 1]
