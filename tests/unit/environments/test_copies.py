from __future__ import annotations

import copy
import itertools
import pickle
import tempfile
import threading
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, RecordVideo, TimeLimit, TransformObservation, TransformReward

from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.environments.wrappers import wrapper_chain
from rlwandb_callbacks.errors import EnvError
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


class Factor(TransformReward):
    """Subclass that takes other arguments than the class that records its own."""

    def __init__(self, env: Any, factor: float) -> None:
        super().__init__(env, lambda reward: factor * reward)


class Doubled(TransformReward):
    """Subclass that takes the recorded argument in another meaning."""

    def __init__(self, env: Any, func: Any) -> None:
        super().__init__(env, lambda reward: 2 * func(reward))


class Stretched(TransformObservation):
    """Subclass whose function holds a local variable."""

    def __init__(self, env: Any) -> None:
        factors = np.array([1.0, 2.0, 3.0])
        super().__init__(env, lambda observation: factors * observation, env.observation_space)


class Limit(TimeLimit):
    """Subclass that changes an attribute after the arguments have been recorded."""

    def __init__(self, env: Any) -> None:
        super().__init__(env, 3)
        self._max_episode_steps = 5


class Recorded(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Wrapper that records its own argument."""

    def __init__(self, env: Any, factor: float = 1.0) -> None:
        RecordConstructorArgs.__init__(self, factor=factor)
        super().__init__(env)
        self.factor = factor

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        return observation, self.factor * float(reward), *rest


class Forwarding(gym.RewardWrapper[Any, Any]):
    """Wrapper that passes all other attributes on, as wrappers of old Gym did."""

    def reward(self, reward: Any) -> Any:
        return 3 * reward

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


def pendulum() -> Any:
    return gym.make("Pendulum-v1")


def changed_later() -> Any:
    env = Recorded(pendulum(), factor=2.0)
    env.factor = 7.0
    return env


def of_a_local_class() -> Any:
    class Local(Doubled): ...

    return Local(pendulum(), np.negative)


SUBCLASSES = {
    "other arguments": lambda: Factor(pendulum(), 3.0),
    "argument in another meaning": lambda: Doubled(pendulum(), np.negative),
    "function with a local variable": lambda: Stretched(pendulum()),
    "attribute set by a subclass": lambda: Limit(pendulum()),
    "attribute set later": changed_later,
    "local class": of_a_local_class,
    "attributes passed on": lambda: Forwarding(Factor(pendulum(), 3.0)),
    "several": lambda: Limit(Stretched(Factor(pendulum(), 3.0))),
}


@pytest.mark.parametrize("kind", SUBCLASSES)
def test_subclassed_wrappers_are_copied_as_they_are(kind: str) -> None:
    original, twin = SUBCLASSES[kind](), SUBCLASSES[kind]()
    copied = pickle.loads(cloudpickle.dumps(env_factory(original, {})))()
    assert wrapper_names(copied) == wrapper_names(original)
    for env in (copied, twin):
        env.reset(seed=3)
    assert trajectory(copied) == trajectory(twin)


class Locked(Recorded):
    """Wrapper that cannot be copied, but made again from its recorded arguments."""

    def __init__(self, env: Any, factor: float = 1.0) -> None:
        RecordConstructorArgs.__init__(self, factor=factor)
        super().__init__(env, factor)
        self.lock, self.highest = threading.Lock(), env.action_space.high


class LockedFactor(Locked):
    """Wrapper that can neither be copied nor made again, as its own argument is not recorded."""

    def __init__(self, env: Any, tenths: int) -> None:
        super().__init__(env, tenths / 10)


def test_wrapper_that_cannot_be_copied_is_made_again_if_it_records_its_own_arguments() -> None:
    copied = env_factory(Scaled(Locked(pendulum(), 4.0), 2.0), {})()
    assert (copied.factor, copied.env.factor) == (2.0, 4.0)
    assert copied.env.env is not copied.unwrapped
    with pytest.raises(EnvError, match=r"'Pendulum-v1', which can neither.*lock.*Set evaluation.env to a function"):
        env_factory(LockedFactor(pendulum(), 40), {})


def heavier_cartpole() -> Any:
    env = gym.make("CartPole-v1")
    env.unwrapped.length, env.unwrapped.tau = 2.0, 0.1
    return env


def costly_cheetah() -> Any:
    env = gym.make("HalfCheetah-v5")
    env.unwrapped._ctrl_cost_weight = 7.0
    return env


@pytest.mark.parametrize("make", [heavier_cartpole, costly_cheetah])
def test_attributes_set_in_the_innermost_environment_are_copied(make: Any) -> None:
    original, twin = make(), make()
    original.reset(seed=1)
    trajectory(original, 20)
    copied = pickle.loads(cloudpickle.dumps(env_factory(original, {})))()
    for env in (copied, twin):
        env.reset(seed=3)
    as_made = gym.make(original.spec.id)
    as_made.reset(seed=3)
    steps = trajectory(copied)
    assert steps == trajectory(twin) != trajectory(as_made)


class Counting(CorridorEnv):
    """Environment with settings, with counters over all episodes, and with one of the present episode."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.config, self.goals = {"lanes": 2, "speeds": [1, 2]}, np.zeros(3)
        self.total_steps, self.resets, self.episode_steps = 0, 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.resets += 1
        self.episode_steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.total_steps += 1
        self.episode_steps += 1
        return super().step(action)


def test_settings_and_counters_over_all_episodes_are_copied_and_the_state_of_an_episode_is_not() -> None:
    gym.register("Counting-v0", Counting, max_episode_steps=3)
    try:
        original = gym.make("Counting-v0")
        original.reset(seed=0)
        trajectory(original)
        inner = original.unwrapped
        inner.config["lanes"], inner.goals[1], inner.note = 4, 0.5, "mine"
        assert inner.episode_steps > 0
        copied = env_factory(original, {})().unwrapped
    finally:
        del gym.registry["Counting-v0"]
    assert (copied.config, copied.goals.tolist(), copied.note) == (
        {"lanes": 4, "speeds": [1, 2]},
        [0.0, 0.5, 0.0],
        "mine",
    )
    assert (copied.total_steps, copied.resets) == (inner.total_steps, inner.resets)
    assert copied.episode_steps == 0
    assert copied.config is not inner.config


class Simulated(gym.Env[Any, Any]):
    """Environment with a connection to a simulator and a temporary folder, as each instance has its own."""

    observation_space = gym.spaces.Box(-99.0, 99.0, (1,))
    action_space = gym.spaces.Discrete(2)
    worlds: ClassVar[dict[int, int]] = {}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.client = next(number for number in itertools.count() if number not in self.worlds)
        self.worlds[self.client] = 0
        self.folder = tempfile.mkdtemp()
        self.length = 10

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.worlds[self.client] = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.worlds[self.client] += 1
        count = self.worlds[self.client]
        return np.array([count], np.float32), 1.0, count >= self.length, False, {}

    def close(self) -> None:
        del self.worlds[self.client]
        Path(self.folder).rmdir()


def test_copies_have_a_simulator_and_a_folder_of_their_own() -> None:
    gym.register("Simulated-v0", Simulated)
    try:
        original = gym.make("Simulated-v0")
        original.reset(seed=0)
        original.unwrapped.length = 7  # type: ignore[attr-defined]  # of Simulated
        copied = env_factory(original, {})()
        inner, inner_of_copy = original.unwrapped, copied.unwrapped
        assert isinstance(inner, Simulated)
        assert isinstance(inner_of_copy, Simulated)
        assert (inner_of_copy.client, inner_of_copy.length) == (1, 7)
        assert inner_of_copy.folder != inner.folder
        copied.close()
        assert (list(Simulated.worlds), Path(inner.folder).is_dir()) == ([0], True)
    finally:
        original.close()
        del gym.registry["Simulated-v0"]
