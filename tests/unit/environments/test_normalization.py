from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TransformReward
from gymnasium.wrappers import vector as vector_wrappers
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize
from tensordict import TensorDict
from torch import nn
from torchrl.envs import Compose, GymEnv, ObservationNorm, StepCounter, TransformedEnv, VecNormV2

from rlwandb_callbacks.environments.normalization import normalizers, with_raw_rewards, with_statistics
from rlwandb_callbacks.environments.statistics import Statistics, merge_statistics, statistics_of, training_statistics
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


def stable_baselines(env: Any = "Pendulum-v1", **settings: Any) -> VecNormalize:
    """Returns a vector of Stable-Baselines3 that has normalized some observations."""
    envs = VecNormalize(DummyVecEnv([lambda: gym.make(env) if isinstance(env, str) else env()] * 2), **settings)
    envs.seed(0)
    envs.reset()
    for _ in range(40):
        envs.step(np.stack([envs.action_space.sample()] * 2))
    return envs


class Goals(PointEnv):
    """Environment whose observations are a dict with a picture."""

    def __init__(self) -> None:
        super().__init__()
        parts = {"at": self.observation_space, "view": spaces.Box(0, 255, (3, 3, 1), np.uint8)}
        self.observation_space = spaces.Dict(parts)

    def reset(self, **options: Any) -> Any:
        at, info = super().reset(**options)
        return {"at": at, "view": np.full((3, 3, 1), 7, np.uint8)}, info

    def step(self, action: Any) -> Any:
        at, *rest = super().step(action)
        return {"at": at, "view": np.full((3, 3, 1), 9, np.uint8)}, *rest


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left.dtype == right.dtype and np.allclose(left, right, atol=1e-6)


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("Pendulum-v1", {}),
        ("Pendulum-v1", {"clip_obs": 0.3, "epsilon": 0.5}),
        (Goals, {}),
        (Goals, {"norm_obs_keys": ["at"], "clip_obs": 0.01}),
    ],
    ids=["defaults", "limit", "dict", "one key"],
)
def test_observations_are_those_of_stable_baselines(env: Any, settings: dict[str, Any]) -> None:
    make = env if callable(env) else lambda: gym.make(env)
    trained = stable_baselines(env, **settings)
    for source in (trained, VecMonitor(trained), VecFrameStack(trained, 1)):
        single = with_statistics(make(), statistics_of(source))
        vectored = with_statistics(SyncVectorEnv([make] * 2, autoreset_mode="SameStep"), statistics_of(source))
        raw, seen = make().reset(seed=4)[0], single.reset(seed=4)[0]
        assert same(seen, trained.normalize_obs(raw))
        assert single.observation_space.contains(seen)
        batch = vectored.reset(seed=4)[0]
        first = {key: part[0] for key, part in batch.items()} if isinstance(batch, dict) else batch[0]
        assert same(first, seen)
        assert vectored.observation_space.contains(batch)


def test_vector_that_normalizes_only_rewards_has_no_statistics() -> None:
    assert statistics_of(stable_baselines(norm_obs=False)) is None
    switched_off = stable_baselines()
    switched_off.norm_obs = False
    assert statistics_of(switched_off) is None


class ByTianshou:
    """Vector with running statistics that have the limit themselves, as Tianshou's."""

    def __init__(self, venv: Any) -> None:
        rms = SimpleNamespace(mean=np.full(3, 0.5), var=np.full(3, 4.0), count=9, eps=0.25, clip_max=0.2)
        self.venv, self.obs_rms = venv, rms

    def reset(self) -> Any: ...

    def step(self, actions: Any) -> Any: ...


def test_limit_of_the_running_statistics_themselves() -> None:
    statistics = statistics_of(ByTianshou(None))
    raw, seen = (
        env.reset(seed=4)[0] for env in (gym.make("Pendulum-v1"), with_statistics(gym.make("Pendulum-v1"), statistics))
    )
    assert seen == pytest.approx(np.clip((raw - 0.5) / np.sqrt(4.25), -0.2, 0.2))


def test_environments_that_other_objects_hold_are_found() -> None:
    trained = stable_baselines()
    agent = SimpleNamespace(env=trained)
    for module, policy, name in [
        (SimpleNamespace(envs=trained), None, "self.envs"),
        (SimpleNamespace(agent=agent), None, "self.agent.env"),
        (SimpleNamespace(eval_agent=agent, _trainer=agent), None, None),
        (SimpleNamespace(), agent, "evaluation.policy.env"),
    ]:
        found = training_statistics(module, policy=policy)
        assert (None if found is None else found[0]) == name


LOC, SCALE = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: ObservationNorm(1.0, 2.0, ["observation"]),
        lambda: ObservationNorm(LOC, SCALE, ["observation"], standard_normal=True),
        lambda: Compose(
            StepCounter(),
            ObservationNorm(LOC, SCALE, ["observation"], standard_normal=True),
            ObservationNorm(LOC, SCALE, ["observation"]),
        ),
        lambda: VecNormV2(["observation"], decay=0.9),
    ],
    ids=["affine", "standard", "two", "running"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_observations_are_those_of_torchrl(make: Any) -> None:
    env = TransformedEnv(GymEnv("Pendulum-v1"), make())
    env.rollout(20)
    seen = with_statistics(gym.make("Pendulum-v1"), training_statistics(nn.ModuleDict({"env": env}))[1])
    raw = gym.make("Pendulum-v1").reset(seed=5)[0]
    expected = TensorDict({"observation": torch.as_tensor(raw)})
    for each in env.transform if isinstance(env.transform, Compose) else [env.transform]:
        if isinstance(each, VecNormV2):
            expected = each.freeze()._stateful_norm(expected)
        elif isinstance(each, ObservationNorm):
            expected = each(expected)
    assert seen.reset(seed=5)[0] == pytest.approx(expected["observation"].numpy(), abs=1e-5)


def test_transform_without_values_yet_has_no_statistics() -> None:
    assert statistics_of(TransformedEnv(GymEnv("Pendulum-v1"), ObservationNorm(in_keys=["observation"]))) is None
