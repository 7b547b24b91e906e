from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TransformReward
from gymnasium.wrappers import vector as vector_wrappers

from rlwandb_callbacks.environments.normalization import (
    Statistics,
    merge_statistics,
    normalizers,
    statistics_of,
    training_statistics,
    with_raw_rewards,
    with_statistics,
)
from rlwandb_callbacks.testing import PointEnv


def step_randomly(env: Any, steps: int = 30) -> None:
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        env.step(env.action_space.sample())


def trained(env: Any) -> Any:
    step_randomly(env)
    return env


def vector() -> Any:
    return gym.make_vec("Pendulum-v1", num_envs=3, vectorization_mode="sync")


TRAINED = {
    "single": lambda: trained(NormalizeObservation(gym.make("Pendulum-v1"))),
    "vector": lambda: trained(vector_wrappers.NormalizeObservation(vector())),
    "inside others": lambda: trained(
        vector_wrappers.ClipReward(vector_wrappers.NormalizeObservation(vector()), -1.0, 1.0)
    ),
}


@pytest.mark.parametrize("kind", TRAINED)
def test_statistics_are_found_under_other_wrappers(kind: str) -> None:
    env = TRAINED[kind]()
    found, rms = statistics_of(env), next(normalizers(env)).obs_rms
    assert np.array_equal(found.mean, rms.mean)
    assert np.array_equal(found.variance, rms.var)
    assert not np.shares_memory(found.mean, rms.mean)


def test_statistics_of_sub_environments_are_merged() -> None:
    env = SyncVectorEnv([lambda: NormalizeObservation(gym.make("Pendulum-v1"))] * 2)
    step_randomly(env)
    one, other = (each.obs_rms for each in env.envs)
    assert not np.array_equal(one.mean, other.mean)
    assert statistics_of(env).mean == pytest.approx((one.mean + other.mean) / 2)
    assert statistics_of(env).count == pytest.approx(one.count + other.count)


def test_merged_statistics_are_those_of_all_observations() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(loc=size, size=(size, 4)) for size in (3, 10, 57)]
    parts = [Statistics(batch.mean(axis=0), batch.var(axis=0), len(batch)) for batch in batches]
    together, all_of_them = np.concatenate(batches), merge_statistics(parts)
    assert all_of_them.mean == pytest.approx(together.mean(axis=0))
    assert all_of_them.variance == pytest.approx(together.var(axis=0))


def test_training_environment_is_found_among_the_attributes_of_a_module() -> None:
    wanted, other = TRAINED["single"](), NormalizeObservation(gym.make("CartPole-v1"))
    for module, name in [
        (SimpleNamespace(envs=wanted, other=other), "self.envs"),
        (SimpleNamespace(eval_env=other, test_env=other, agent_env=wanted), "self.agent_env"),
        (SimpleNamespace(env=gym.make("Pendulum-v1"), third=wanted), "self.third"),
    ]:
        found = training_statistics(module)
        assert found[0] == name
        assert found[1].mean.shape == (3,)
    assert training_statistics(SimpleNamespace(env=gym.make("Pendulum-v1"), number=3)) is None
    assert training_statistics(SimpleNamespace(), wanted)[0] == "evaluation.env"


@pytest.mark.parametrize(
    "make",
    [
        lambda: gym.make("Pendulum-v1"),
        lambda: NormalizeObservation(gym.make("Pendulum-v1")),
        vector,
        lambda: vector_wrappers.NormalizeObservation(vector()),
        lambda: SyncVectorEnv([lambda: NormalizeObservation(gym.make("Pendulum-v1"))] * 3),
    ],
    ids=["plain", "normalized", "vector", "normalized vector", "vector of normalized"],
)
def test_observations_are_normalized_with_frozen_statistics(make: Any) -> None:
    source = TRAINED["vector"]()
    known = statistics_of(source)
    env, plain = with_statistics(make(), known), vector() if isinstance(make(), gym.vector.VectorEnv) else None
    plain = plain or gym.make("Pendulum-v1")
    for _ in range(3):
        observation, raw = env.reset(seed=4)[0], plain.reset(seed=4)[0]
        expected = (raw - known.mean) / np.sqrt(known.variance + known.epsilon)
        assert observation == pytest.approx(expected, abs=1e-5)
        step_randomly(env, 5)
    assert np.array_equal(statistics_of(source).mean, known.mean)


def test_environment_with_other_observations_is_not_wrapped() -> None:
    env = gym.make("CartPole-v1")
    assert with_statistics(env, statistics_of(TRAINED["single"]())) is env


def scaled(env: Any) -> Any:
    """Rewards normalized and then cut, as in CleanRL's PPO."""
    return TransformReward(NormalizeReward(env, gamma=0.99), lambda reward: np.clip(reward, -0.1, 0.1))


def rewards_of(env: Any, steps: int = 8) -> list[Any]:
    env.reset(seed=3)
    env.action_space.seed(3)
    return [np.array(env.step(env.action_space.sample())[1], dtype=np.float64).tolist() for _ in range(steps)]


def test_raw_rewards_under_wrappers_that_change_rewards() -> None:
    raw = rewards_of(PointEnv())
    assert rewards_of(scaled(PointEnv())) != raw
    assert rewards_of(with_raw_rewards(scaled(PointEnv()))) == raw


@pytest.mark.parametrize(
    "make",
    [
        lambda: vector_wrappers.NormalizeReward(SyncVectorEnv([PointEnv] * 3)),
        lambda: vector_wrappers.ClipReward(vector_wrappers.NormalizeReward(SyncVectorEnv([PointEnv] * 3)), -0.1, 0.1),
        lambda: SyncVectorEnv([lambda: scaled(PointEnv())] * 3),
    ],
    ids=["around", "around and cut", "inside"],
)
def test_raw_rewards_of_a_vector(make: Any) -> None:
    raw = rewards_of(SyncVectorEnv([PointEnv] * 3))
    assert rewards_of(make()) != raw
    assert rewards_of(with_raw_rewards(make())) == raw


def test_environment_without_reward_scaling_is_not_wrapped() -> None:
    env = gym.make("CartPole-v1")
    assert with_raw_rewards(env) is env
