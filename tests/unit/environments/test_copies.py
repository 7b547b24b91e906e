from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, RecordVideo, TimeLimit, TransformReward

from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.environments.wrappers import wrapper_chain
from rlwandb_callbacks.testing import CorridorEnv, PointEnv


class Scaled(gym.RewardWrapper[Any, Any]):
    """Wrapper that does not record its arguments, with a reference to the innermost environment."""

    def __init__(self, env: gym.Env[Any, Any], factor: float) -> None:
        super().__init__(env)
        self.factor, self.innermost, self.rewards = factor, env.unwrapped, []

    def reward(self, reward: Any) -> Any:
        self.rewards.append(reward)
        return self.factor * reward


def wrapper_names(env: Any) -> list[str]:
    return [type(layer).__name__ for layer in wrapper_chain(env) if type(layer).__name__ != "PassiveEnvChecker"]


ORIGINALS = {
    "spec": lambda: gym.make("CartPole-v1", max_episode_steps=7),
    "wrappers with a record": lambda: TransformReward(gym.make("Pendulum-v1", g=2.5), lambda reward: 2 * reward),
    "wrappers without a record": lambda: Scaled(gym.make("LunarLander-v3"), 3.0),
    "no spec": lambda: TimeLimit(PointEnv(), 4),
    "Box2D": lambda: gym.make("BipedalWalker-v3"),
    "MuJoCo": lambda: Scaled(gym.make("HalfCheetah-v5"), 2.0),
    "vector": lambda: gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync"),
    "vector of functions": lambda: SyncVectorEnv([CorridorEnv] * 2, autoreset_mode=AutoresetMode.SAME_STEP),
    "wrapped vector": lambda: gym.wrappers.vector.NormalizeObservation(gym.make_vec("CartPole-v1", num_envs=2)),
    "custom vector": lambda: gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point"),
}


def trajectory(env: Any, steps: int = 12) -> list[Any]:
    """Steps an environment from its current state with seeded actions."""
    env.action_space.seed(5)
    steps_taken = []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        steps_taken.append((np.array(observation).tolist(), np.array(reward).tolist()))
        if isinstance(env, gym.Env) and (terminated or truncated):
            env.reset()
    return steps_taken


@pytest.mark.parametrize("kind", ORIGINALS)
def test_environment_of_the_module_is_not_modified(kind: str) -> None:
    original, twin = ORIGINALS[kind](), ORIGINALS[kind]()
    for env in (original, twin):
        env.reset(seed=11)
        trajectory(env, 3)
    copied = env_factory(original, {}).open()
    assert wrapper_names(copied) == wrapper_names(original)
    assert not set(map(id, wrapper_chain(copied))) & set(map(id, wrapper_chain(original)))
    copied.reset(seed=0)
    trajectory(copied, 5)
    copied.close()
    assert trajectory(original) == trajectory(twin)
    for env in (original, twin):
        env.close()


def test_copied_wrappers_keep_their_arguments_and_reference_the_copy() -> None:
    original = Scaled(gym.make("Pendulum-v1", g=2.5), 3.0)
    copied = env_factory(original, {})()
    assert (copied.factor, copied.unwrapped.g, copied.rewards) == (3.0, 2.5, [])
    assert copied.innermost is copied.unwrapped is not original.unwrapped


def test_copies_do_not_render_by_default() -> None:
    original = PointEnv("rgb_array")
    factory = env_factory(original, {})
    assert [env.render_mode for env in (factory(), factory(render=True), original)] == [None, "rgb_array", "rgb_array"]
    copied = env_factory(gym.make("CartPole-v1", render_mode="rgb_array"), {})()
    assert copied.render_mode is None


def test_copies_render_on_request_under_any_wrapper() -> None:
    original = Scaled(gym.make("CartPole-v1"), 2.0)
    copied = env_factory(original, {})(render=True)
    copied.reset(seed=0)
    assert copied.render().ndim == 3
    copied.close()
    assert original.render_mode is None


@pytest.mark.parametrize("wrapper", [lambda env: env, lambda env: Scaled(env, 2.0)])
def test_video_recorder_of_the_module_is_not_copied(wrapper: Any, tmp_path: Path) -> None:
    original = wrapper(RecordVideo(gym.make("CartPole-v1", render_mode="rgb_array"), str(tmp_path / "recorded")))
    files = sorted(tmp_path.rglob("*"))
    copied = env_factory(original, {})()
    copied.reset(seed=0)
    trajectory(copied, 40)
    copied.close()
    assert "RecordVideo" not in wrapper_names(copied)
    assert sorted(tmp_path.rglob("*")) == files


def test_vector_copy_keeps_its_autoreset_mode() -> None:
    for mode in AutoresetMode:
        copied = env_factory(SyncVectorEnv([CorridorEnv] * 2, autoreset_mode=mode), {}).open()
        assert copied.metadata["autoreset_mode"] is mode
        by_id = gym.make_vec("Pendulum-v1", 2, vector_kwargs={"autoreset_mode": mode})
        assert env_factory(by_id, {}).open(render=True).metadata["autoreset_mode"] is mode


def test_copied_wrapper_has_its_own_statistics() -> None:
    original = Scaled(NormalizeObservation(gym.make("CartPole-v1")), 1.0)
    original.reset(seed=0)
    before = copy.deepcopy(original.env.obs_rms.mean)
    copied = env_factory(original, {})()
    copied.reset(seed=3)
    trajectory(copied, 20)
    assert np.array_equal(original.env.obs_rms.mean, before)
