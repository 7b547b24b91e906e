"""Scores of whole games beside returns that wrappers clip, shape, or cut at a lost life."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch
from caught_warnings import package_warnings
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import ClipReward, RecordEpisodeStatistics, TimeLimit, TransformReward
from gymnasium.wrappers import vector as vector_wrappers
from stable_baselines3.common.atari_wrappers import AtariWrapper, ClipRewardEnv, EpisodicLifeEnv
from stable_baselines3.common.monitor import Monitor

from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.testing import MemoryTracker, TinyValidatedQ

LIVES, STEPS = 3, 4


class Game(gym.Env[Any, Any]):
    """Has three lives of four steps; each step of the game of seed ``s`` has the reward ``10 + s``.

    The observation is the number of steps so far. After the end, or in the middle, further steps are errors.
    """

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.ale = self  # for the wrappers of Atari
        self.steps = LIVES * STEPS

    def lives(self) -> int:
        return LIVES - self.steps // STEPS

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.reward = 0, 10.0 + (seed or 0)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.lives() > 0
        self.steps += 1
        return np.full(1, self.steps, np.float32), self.reward, self.lives() == 0, False, {}


class LifeLossEnds(gym.Wrapper[Any, Any, Any, Any]):
    """Ends an episode at a lost life, and resets the game then."""

    def step(self, action: Any) -> Any:
        before = self.unwrapped.lives()
        observation, reward, terminated, *rest = self.env.step(action)
        return observation, reward, terminated or self.unwrapped.lives() < before, *rest


class Shaped(gym.Wrapper[Any, Any, Any, Any]):
    """Adds a bonus for the first action, in a ``step`` of its own."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        return observation, reward + 0.5, *rest


class Player(TinyValidatedQ):
    """Always takes action 0."""

    def __init__(self) -> None:
        super().__init__(batches=1)

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(observations), dtype=torch.long)


def evaluate(fit: Any, make_env: Any, policy: Any = "policy", **settings: Any) -> tuple[MemoryTracker, list[str]]:
    tracker = MemoryTracker()
    evaluation = {"env": make_env, "policy": policy, "episodes": 4, **settings}
    cfg = {"on_error": "raise", "video_logger": False, "evaluation": evaluation}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Player(), EvaluationCallback(cfg, tracker=tracker))
    return tracker, [text for text in package_warnings(caught) if "score" in text]


def of(*wrappers: Any) -> Any:
    """Returns what makes the game inside wrappers, the innermost first."""

    def make(render_mode: str | None = None) -> Any:
        env: Any = Game(render_mode)
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    return make


def vector(kind: Any, mode: AutoresetMode, *wrappers: Any) -> Any:
    return lambda: kind([of(*wrappers)] * 2, autoreset_mode=mode)


SCORE = float(np.mean([LIVES * STEPS * (10 + seed) for seed in range(4)]))  # 138
LIFE = float(np.mean([STEPS * (10 + seed) for seed in range(4)]))  # 46


@pytest.mark.parametrize(
    ("make_env", "returned", "named"),
    [
        (of(Monitor, EpisodicLifeEnv, ClipRewardEnv), STEPS, ["EpisodicLifeEnv", "ClipRewardEnv"]),
        (of(RecordEpisodeStatistics, EpisodicLifeEnv), LIFE, ["EpisodicLifeEnv"]),
        (of(EpisodicLifeEnv, Monitor, ClipRewardEnv), STEPS, ["EpisodicLifeEnv", "ClipRewardEnv"]),
        (of(EpisodicLifeEnv, ClipRewardEnv), STEPS, ["EpisodicLifeEnv", "ClipRewardEnv"]),
        (of(LifeLossEnds), LIFE, ["LifeLossEnds"]),
        (of(partial(ClipReward, max_reward=1.0)), LIVES * STEPS, ["ClipReward"]),
        (of(partial(TransformReward, func=lambda reward: reward / 100)), SCORE / 100, ["TransformReward"]),
        (of(Monitor, Shaped), SCORE + LIVES * STEPS * 0.5, ["Shaped"]),
    ],
)
@pytest.mark.parametrize("num_envs", [1, 4])
def test_score_of_the_whole_game_stands_beside_the_return(
    fit: Any, make_env: Any, returned: float, named: list[str], num_envs: int
) -> None:
    tracker, (warning,) = evaluate(fit, make_env, num_envs=num_envs)
    assert tracker.column("eval/return_mean") == [pytest.approx(returned)]
    assert tracker.column("eval/score_mean") == [SCORE]
    assert all(name in warning for name in [*named, "eval/score_mean", "whole games"])
    (table,) = tracker.column("eval/episodes")
    assert table.columns[-1] == "score"
    assert [row[-1] for row in table.rows] == [120, 132, 144, 156]


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_score_of_games_in_a_vector(fit: Any, kind: Any, mode: AutoresetMode) -> None:
    make_env = vector(kind, mode, Monitor, EpisodicLifeEnv, ClipRewardEnv)
    tracker, (warning,) = evaluate(fit, make_env)
    assert tracker.column("eval/return_mean") == [STEPS]
    assert tracker.column("eval/score_mean") == [SCORE]
    assert "EpisodicLifeEnv" in warning


def test_score_inside_wrappers_of_a_vector(fit: Any) -> None:
    def make_envs() -> Any:
        envs = SyncVectorEnv([of()] * 2)
        return vector_wrappers.ClipReward(vector_wrappers.RecordEpisodeStatistics(envs), max_reward=1.0)

    tracker, (warning,) = evaluate(fit, make_envs)
    assert tracker.column("eval/score_mean") == [SCORE]
    assert "ClipReward" in warning


def test_a_vector_whose_cuts_reset_the_game_has_no_score(fit: Any) -> None:
    tracker, (warning,) = evaluate(fit, vector(SyncVectorEnv, AutoresetMode.NEXT_STEP, LifeLossEnds))
    assert tracker.column("eval/return_mean") == [LIFE]
    assert tracker.column("eval/score_mean") == []
    assert "LifeLossEnds" in warning
    assert "not known" in warning


@pytest.mark.parametrize(
    "make_env", [of(), of(Monitor), of(RecordEpisodeStatistics, partial(TimeLimit, max_episode_steps=3))]
)
def test_without_such_wrappers_there_is_no_score(fit: Any, make_env: Any) -> None:
    tracker, warned = evaluate(fit, make_env)
    assert tracker.column("eval/score_mean") == []
    assert warned == []
    assert tracker.column("eval/episodes")[0].columns[-1] == "success"


def test_time_limits_cut_the_score_too(fit: Any) -> None:
    tracker, _ = evaluate(fit, of(ClipRewardEnv, partial(TimeLimit, max_episode_steps=3)))
    assert tracker.column("eval/score_mean") == [SCORE / (LIVES * STEPS) * 3]
    tracker, _ = evaluate(fit, of(EpisodicLifeEnv, ClipRewardEnv), max_steps=6)
    assert tracker.column("eval/score_mean") == [pytest.approx(SCORE / (LIVES * STEPS) * 7)]  # a reset takes a step


def test_each_episode_starts_a_new_game_after_a_cut(fit: Any) -> None:
    tracker, _ = evaluate(fit, of(Monitor, EpisodicLifeEnv, ClipRewardEnv), max_steps=6, num_envs=1)
    (table,) = tracker.column("eval/episodes")
    assert [row[-1] for row in table.rows] == [7 * (10 + seed) for seed in range(4)]  # a reset takes a step
    assert [row[4] for row in table.rows] == [STEPS] * 4


def test_scores_of_atari_are_those_of_its_monitor(fit: Any) -> None:
    gym.register_envs(ale_py)

    def make() -> Any:
        return AtariWrapper(Monitor(gym.make("ALE/Qbert-v5", frameskip=1, repeat_action_probability=0.0)), noop_max=0)

    def act(observations: Any) -> np.ndarray:
        return np.array([int(each.sum()) % 6 for each in np.asarray(observations, dtype=np.int64)])

    env, scores = make(), []
    for seed in range(1):
        info: dict[str, Any] = {}
        observation, _ = env.reset(seed=seed)
        while "episode" not in info:
            observation, _, terminated, _, info = env.step(act(observation[None])[0])
            if terminated and "episode" not in info:
                observation, _ = env.reset()
        scores.append(info["episode"]["r"])
    tracker, (warning,) = evaluate(fit, make, act, episodes=1)
    assert tracker.column("eval/score_mean") == [np.mean(scores)]
    assert tracker.column("eval/return_mean")[0] < np.mean(scores) / 10
    assert all(name in warning for name in ("EpisodicLifeEnv", "ClipRewardEnv"))
