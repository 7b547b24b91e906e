"""Physics of a MuJoCo simulation that training has changed."""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np

from rlwandb_callbacks.environments.factory import env_factory


def observations(env: Any) -> list[list[float]]:
    env.reset(seed=3)
    env.action_space.seed(3)
    return [env.step(env.action_space.sample())[0].tolist() for _ in range(10)]


def changed_cheetah() -> Any:
    env = gym.make("HalfCheetah-v5")
    inner: Any = env.unwrapped
    inner.model.body_mass[1:] *= 3
    inner.model.opt.gravity[2] = -2.0
    inner.model.opt.timestep = 0.005
    return env


def test_copies_have_the_masses_and_the_gravity_that_training_has_set() -> None:
    original = gym.make("HalfCheetah-v5")
    usual = observations(original)
    inner: Any = original.unwrapped
    before = env_factory(original, {})
    inner.model.body_mass[1:] *= 3
    inner.model.opt.gravity[2], inner.model.opt.timestep = -2.0, 0.005
    after = pickle.loads(cloudpickle.dumps(env_factory(original, {}, earlier=before)))
    assert observations(before.open()) == usual
    assert observations(after.open()) == observations(changed_cheetah()) != usual


def test_model_that_was_not_changed_is_not_carried() -> None:
    original = gym.make("HalfCheetah-v5")
    observations(original)
    factory = env_factory(original, {})
    assert factory.make.origin.changes == [{}]  # type: ignore[union-attr]  # an EnvCopier
    copied: Any = factory.open().unwrapped
    assert not np.shares_memory(copied.model.body_mass, original.unwrapped.model.body_mass)  # type: ignore[attr-defined]  # of MuJoCo
