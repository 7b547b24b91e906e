from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, RecordVideo, TimeLimit, TransformReward

from rlwandb_callbacks.environments.copies import layers
from rlwandb_callbacks.environments.factory import env_maker
from rlwandb_callbacks.testing import CorridorEnv, PointEnv


class Scaled(gym.RewardWrapper[Any, Any]):
    """Does not record what it was made with, and remembers the innermost environment."""

    def __init__(self, env: gym.Env[Any, Any], factor: float) -> None:
        super().__init__(env)
        self.factor, self.innermost, self.rewards = factor, env.unwrapped, []

    def reward(self, reward: Any) -> Any:
        self.rewards.append(reward)
        return self.factor * reward


def wrappers_of(env: Any) -> list[str]:
    return [type(layer).__name__ for layer in layers(env) if type(layer).__name__ != "PassiveEnvChecker"]


GIVEN = {
    "spec": lambda: gym.make("CartPole-v1", max_episode_steps=7),
    "wrappers with a record": lambda: TransformReward(gym.make("Pendulum-v1", g=2.5), lambda reward: 2 * reward),
    "wrappers without a record": lambda: Scaled(gym.make("LunarLander-v3"), 3.0),
    "no spec": lambda: TimeLimit(PointEnv(), 4),
    "Box2D": lambda: gym.make("BipedalWalker-v3"),
    "MuJoCo": lambda: Scaled(gym.make("HalfCheetah-v5"), 2.0),
    "vector": lambda: gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync"),
    "vector of functions": lambda: SyncVectorEnv([CorridorEnv] * 2, autoreset_mode=AutoresetMode.SAME_STEP),
    "wrapped vector": lambda: gym.wrappers.vector.NormalizeObservation(gym.make_vec("CartPole-v1", num_envs=2)),
    "vector of its own kind": lambda: gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point"),
}


def trajectory(env: Any, steps: int = 12) -> list[Any]:
    """Goes on from where the environment is, by actions that a seed gives."""
    env.action_space.seed(5)
    seen = []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append((np.array(observation).tolist(), np.array(reward).tolist()))
        if isinstance(env, gym.Env) and (terminated or truncated):
            env.reset()
    return seen


@pytest.mark.parametrize("kind", GIVEN)
def test_an_env_of_the_module_goes_on_as_if_nothing_had_been(kind: str) -> None:
    ours, twin = GIVEN[kind](), GIVEN[kind]()
    for env in (ours, twin):
        env.reset(seed=11)
        trajectory(env, 3)
    made = env_maker(ours, {}).open()
    assert wrappers_of(made) == wrappers_of(ours)
    assert not set(map(id, layers(made))) & set(map(id, layers(ours)))
    made.reset(seed=0)
    trajectory(made, 5)
    made.close()
    assert trajectory(ours) == trajectory(twin)
    for env in (ours, twin):
        env.close()


def test_copies_keep_their_wrappers_arguments_and_point_at_themselves() -> None:
    given = Scaled(gym.make("Pendulum-v1", g=2.5), 3.0)
    made = env_maker(given, {})()
    assert (made.factor, made.unwrapped.g, made.rewards) == (3.0, 2.5, [])
    assert made.innermost is made.unwrapped is not given.unwrapped


def test_copies_of_an_env_that_is_shown_on_a_screen_are_not_shown() -> None:
    given = PointEnv("rgb_array")
    maker = env_maker(given, {})
    assert (maker().render_mode, maker(render=True).render_mode, given.render_mode) == (None, "rgb_array", "rgb_array")
    made = env_maker(gym.make("CartPole-v1", render_mode="rgb_array"), {})()
    assert made.render_mode is None


def test_copies_draw_where_that_is_asked_for_under_any_wrapper() -> None:
    given = Scaled(gym.make("CartPole-v1"), 2.0)
    made = env_maker(given, {})(render=True)
    made.reset(seed=0)
    assert made.render().ndim == 3
    made.close()
    assert given.render_mode is None


@pytest.mark.parametrize("wrapper", [lambda env: env, lambda env: Scaled(env, 2.0)])
def test_a_recorder_of_the_module_is_not_run_at_evaluation(wrapper: Any, tmp_path: Path) -> None:
    given = wrapper(RecordVideo(gym.make("CartPole-v1", render_mode="rgb_array"), str(tmp_path / "theirs")))
    files = sorted(tmp_path.rglob("*"))
    made = env_maker(given, {})()
    made.reset(seed=0)
    trajectory(made, 40)
    made.close()
    assert "RecordVideo" not in wrappers_of(made)
    assert sorted(tmp_path.rglob("*")) == files


def test_a_vector_keeps_its_autoreset_mode() -> None:
    for mode in AutoresetMode:
        made = env_maker(SyncVectorEnv([CorridorEnv] * 2, autoreset_mode=mode), {}).open()
        assert made.metadata["autoreset_mode"] is mode
        by_id = gym.make_vec("Pendulum-v1", 2, vector_kwargs={"autoreset_mode": mode})
        assert env_maker(by_id, {}).open(render=True).metadata["autoreset_mode"] is mode


def test_statistics_of_a_copied_wrapper_are_its_own() -> None:
    given = Scaled(NormalizeObservation(gym.make("CartPole-v1")), 1.0)
    given.reset(seed=0)
    before = copy.deepcopy(given.env.obs_rms.mean)
    made = env_maker(given, {})()
    made.reset(seed=3)
    trajectory(made, 20)
    assert np.array_equal(given.env.obs_rms.mean, before)
