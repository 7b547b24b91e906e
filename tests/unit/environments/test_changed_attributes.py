"""Environments that training changes: evaluations play them as they are now."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils import EzPickle
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from rlwandb_callbacks.environments.factory import EnvFactory, env_factory
from rlwandb_callbacks.environments.plain_values import are_equal, is_plain
from rlwandb_callbacks.environments.wrappers import sub_envs


class LevelEnv(gym.Env[Any, Any]):
    """Environment whose episodes have as many steps as its level."""

    observation_space = spaces.Box(-99.0, 99.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, level: int = 2, render_mode: str | None = None) -> None:
        self.level, self.render_mode, self.steps = level, render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.array([self.steps], np.float32), 1.0, self.steps >= self.level, False, {}

    def render(self) -> Any:
        return np.zeros((16, 16, 3), np.uint8)


class Limit(gym.Wrapper[Any, Any, Any, Any]):
    """Wrapper with a limit of steps, which a curriculum may raise."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.level, self.steps = 2, 0

    def reset(self, **options: Any) -> Any:
        self.steps = 0
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        observation, reward, *_ = self.env.step(action)
        self.steps += 1
        return observation, reward, self.steps >= self.level, False, {}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gym.register("Level-v0", LevelEnv)
    yield
    del gym.registry["Level-v0"]


def limited() -> Any:
    return Limit(LevelEnv(level=99))


LIVING: dict[str, Callable[[], Any]] = {
    "spec": lambda: gym.make("Level-v0"),
    "class": LevelEnv,
    "wrapper": limited,
    "vector of a spec": lambda: gym.make_vec("Level-v0", 2, vectorization_mode="sync"),
    "vector of functions": lambda: SyncVectorEnv([LevelEnv] * 2),
    "vector of wrappers": lambda: SyncVectorEnv([limited] * 2),
    "subprocesses": lambda: AsyncVectorEnv([LevelEnv] * 2),
    "subprocesses of a spec": lambda: gym.make_vec("Level-v0", 2, vectorization_mode="async"),
}


def set_level(env: Any, level: Any) -> None:
    """Sets the level as users do."""
    if isinstance(env, gym.vector.VectorEnv):
        env.set_attr("level", level)
    else:
        env.set_wrapper_attr("level", level, force=False)


def length_of(factory: EnvFactory, row: int = 0) -> int:
    """Plays an episode and counts its steps."""
    env: Any = factory.open()
    env.reset(seed=0)
    for step in range(1, 100):
        terminated = env.step(env.action_space.sample())[2]
        if np.atleast_1d(terminated)[row]:
            env.close()
            return step
    raise AssertionError


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", LIVING)
def test_copies_have_the_level_that_training_has_set_meanwhile(kind: str) -> None:
    env = LIVING[kind]()
    env.reset(seed=0)
    set_level(env, 6)
    before = env_factory(env, {})
    assert length_of(before) == 6
    env.step(env.action_space.sample())
    set_level(env, 10)
    after = env_factory(env, {}, earlier=before)
    assert length_of(pickle.loads(cloudpickle.dumps(after))) == 10  # as in the process that renders
    assert length_of(before) == 6  # replays of an earlier evaluation
    env.close()


def test_sub_environments_have_levels_of_their_own() -> None:
    envs = SyncVectorEnv([LevelEnv, lambda: LevelEnv(level=4), lambda: LevelEnv(level=5)])
    envs.reset(seed=0)
    sub_envs(envs)[1].level = 2  # as new ones of the first function have
    copied: Any = env_factory(envs, {}).open()
    assert [env.level for env in copied.envs] == [2, 2, 5]
    assert [make().level for make in copied.env_fns] == [2, 2, 5]  # to replay an episode


def test_subprocesses_that_are_busy_are_not_asked() -> None:
    envs = AsyncVectorEnv([LevelEnv])
    envs.reset(seed=0)
    envs.step_async(np.zeros(1, np.int64))
    factory = env_factory(envs, {})
    assert length_of(factory) == 2
    assert "subprocesses, which could not be asked" in str(warning_of(factory))
    assert "'self.make_env'" in str(warning_of(factory))
    assert envs.step_wait()[0].tolist() == [[1.0]]
    envs.close()


def warning_of(factory: EnvFactory) -> str | None:
    return factory.make.origin.warning  # type: ignore[union-attr]  # an EnvCopier


class GrowingEnv(LevelEnv):
    """Environment with a level that grows with the number of its episodes."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.episodes = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episodes += 1
        self.level = 2 + self.episodes // 3
        return super().reset(seed=seed, options=options)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("make_vector", [None, SyncVectorEnv, AsyncVectorEnv])
def test_counters_that_go_on_over_episodes_go_on_in_copies(make_vector: Callable[..., Any] | None) -> None:
    gym.register("Growing-v0", GrowingEnv)
    try:
        env = gym.make("Growing-v0") if make_vector is None else make_vector([GrowingEnv])
        for _ in range(8):
            env.reset(seed=0)
            env.step(env.action_space.sample())
        factory = env_factory(env, {})
        assert warning_of(factory) is None
        assert length_of(factory) == 5  # the ninth episode
        env.close()
    finally:
        del gym.registry["Growing-v0"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_subprocesses_that_have_drawn_are_not_asked_for_what_they_cannot_send() -> None:
    envs = AsyncVectorEnv([lambda: gym.make("CartPole-v1", render_mode="rgb_array")])
    envs.reset(seed=0)
    envs.render()
    envs.set_attr("force_mag", 25.0)
    copied = env_factory(envs, {})()
    assert copied.unwrapped.force_mag == 25.0  # type: ignore[attr-defined]  # a CartPole
    assert len(envs.step(np.zeros(1, np.int64))[0]) == 1  # the training goes on
    envs.close()


@dataclass
class Curriculum:
    """Settings of an environment, as an object."""

    level: int = 2
    speeds: tuple[float, ...] = (1.0,)


class ConfiguredEnv(LevelEnv):
    """Environment whose settings are an object."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.curriculum, self.names, self.reward = Curriculum(), SimpleNamespace(goal={"a"}), pow

    def step(self, action: Any) -> Any:
        self.level = self.curriculum.level
        return super().step(action)


def doubled(reward: float) -> float:
    return 2 * reward


def test_settings_that_are_objects_and_functions_are_copied() -> None:
    gym.register("Configured-v0", ConfiguredEnv)
    try:
        env = gym.make("Configured-v0")
        inner: Any = env.unwrapped
        before = env_factory(env, {})
        inner.curriculum.level, inner.names.goal, inner.reward = 7, {"b"}, doubled
        after = env_factory(env, {}, earlier=before)
        assert (length_of(before), length_of(after)) == (2, 7)
        copied: Any = after.open().unwrapped
    finally:
        del gym.registry["Configured-v0"]
    assert copied.curriculum is not inner.curriculum
    assert (copied.names.goal, copied.reward) == ({"b"}, doubled)


class ReconstructedEnv(LevelEnv, EzPickle):
    """Environment whose copies are made again with the arguments of the first one, as many of Gymnasium are."""

    def __init__(self, level: int = 2, render_mode: str | None = None) -> None:
        EzPickle.__init__(self, level, render_mode)
        super().__init__(level, render_mode)


@pytest.mark.parametrize("make", [ReconstructedEnv, lambda: Limit(ReconstructedEnv(3))])
def test_attributes_of_an_environment_that_copies_make_again_are_kept(make: Any) -> None:
    env = make()
    env.unwrapped.level = 6
    before = env_factory(env, {})
    env.unwrapped.level = 10
    after = pickle.loads(cloudpickle.dumps(env_factory(env, {}, earlier=before)))
    assert [factory(render=render).unwrapped.level for factory in (before, after) for render in (False, True)] == [
        6,
        6,
        10,
        10,
    ]


class PickyEnv(LevelEnv):
    """Environment that refuses most actions, as those with action masks do."""

    def step(self, action: Any) -> Any:
        raise ValueError(action)


def test_attributes_are_copied_where_no_random_action_can_be_taken() -> None:
    gym.register("Picky-v0", PickyEnv)
    try:
        env = gym.make("Picky-v0")
        set_level(env, 6)
        copied: Any = env_factory(env, {}).open().unwrapped
    finally:
        del gym.registry["Picky-v0"]
    assert copied.level == 6


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.0, None], ("b", 2): {"c"}}, True),
        (Curriculum(), True),
        (np.zeros(3), True),
        (doubled, True),
        (np.float32(1), True),
        (np.zeros(17 * 2**20, np.uint8), False),
        (list(range(20_000)), False),
        (CYCLE, False),
        (lambda: CYCLE, True),
        (threading.Lock(), False),
        (np.random.default_rng(0), False),
        (LevelEnv(), False),
        ([LevelEnv()], False),
        (SimpleNamespace(env=LevelEnv()), False),
        (spaces.Discrete(2), False),
        (Curriculum, False),
    ],
)
def test_plain_values_are_small_and_lead_to_no_environment(value: Any, expected: bool) -> None:
    assert is_plain(value) is expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), True),
        (float("nan"), float("nan"), True),
        (1, 1.0, False),
        (1, True, False),
        (Curriculum(), Curriculum(), True),
        (Curriculum(), Curriculum(speeds=(2.0,)), False),
        ({"a": [1]}, {"a": [1, 2]}, False),
        ({1, 2}, {2, 1}, True),
    ],
)
def test_plain_values_are_compared_by_type_and_content(left: Any, right: Any, expected: bool) -> None:
    assert are_equal(left, right) is expected
