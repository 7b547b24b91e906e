"""Normalizing wrappers in an evaluation: frozen observation statistics of training, and unscaled rewards."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import NormalizeObservation
from gymnasium.wrappers.vector import NormalizeObservation as NormalizeVectorObservation
from numpy.typing import NDArray

from rlwandb_callbacks.environments.wrappers import AnyVectorWrapper, sub_envs, wrapper_chain

TRAINING_NAMES = ("envs", "env", "train_envs", "train_env", "training_envs", "training_env")
EVALUATION_NAMES = ("eval", "val", "test")


@dataclass(frozen=True)
class Statistics:
    """Running statistics of observations at one moment; mean and variance have the shape of one observation.

    ``epsilon`` is added to the variance before the square root.
    """

    mean: NDArray[np.floating[Any]]
    variance: NDArray[np.floating[Any]]
    count: float
    epsilon: float = 1e-8


def merge_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Returns the statistics of all observations together (Chan et al. 1979)."""
    if len(parts) == 1:
        return parts[0]
    count = sum(part.count for part in parts)
    mean = np.asarray(sum(part.mean * part.count for part in parts) / count)
    variance = sum((part.variance + (part.mean - mean) ** 2) * part.count for part in parts) / count
    return Statistics(mean, np.asarray(variance), count, parts[0].epsilon)


def training_statistics(module: Any, evaluation_env: Any = None) -> tuple[str, Statistics] | None:
    """Finds a normalizing environment: the attribute of the module and its current statistics; None if there is none.

    ``TRAINING_NAMES`` come first; names with a part of ``EVALUATION_NAMES`` are skipped. The value of
    ``evaluation.env`` comes last, if it is an environment. The sub-environments of an ``AsyncVectorEnv`` are in other
    processes and are not searched; wrappers around it are.
    """
    held = {name: value for name, value in vars(module).items() if isinstance(value, gym.Env | VectorEnv)}
    names = [name for name in TRAINING_NAMES if name in held]
    names += [name for name in held if name not in names and not any(part in name for part in EVALUATION_NAMES)]
    for name, env in [*((f"self.{name}", held[name]) for name in names), ("evaluation.env", evaluation_env)]:
        found = statistics_of(env)
        if found is not None:
            return name, found
    return None


def statistics_of(env: Any) -> Statistics | None:
    """Returns the current statistics with which an environment normalizes observations; None if it does not."""
    parts = []
    for layer in normalizers(env):
        rms, epsilon = layer.obs_rms, float(getattr(layer, "epsilon", 1e-8))
        parts.append(Statistics(np.array(rms.mean), np.array(rms.var), float(rms.count), epsilon))
    return merge_statistics(parts) if parts else None


def normalizers(env: Any) -> Iterator[Any]:
    """Yields the wrappers with running statistics of observations, also those inside a vector."""
    for layer in wrapper_chain(env):
        if all(hasattr(getattr(layer, "obs_rms", None), name) for name in ("mean", "var", "count")):
            yield layer
        for inner in sub_envs(layer):
            yield from normalizers(inner)


def normalizes_in_subprocesses(env: Any) -> bool:
    """Returns whether a vector normalizes in its subprocesses, where statistics can be neither read nor set.

    To find out, one more sub-environment is made and closed.
    """
    functions = getattr(env.unwrapped, "env_fns", ()) if isinstance(env, VectorEnv) else ()
    if not functions or sub_envs(env.unwrapped):
        return False
    single = functions[0]()
    try:
        return next(normalizers(single), None) is not None or any(map(_scales_rewards, wrapper_chain(single)))
    finally:
        single.close()


def _scales_rewards(layer: Any) -> bool:
    return any(cls.__name__ == "NormalizeReward" for cls in type(layer).__mro__)


def with_statistics(env: Any, statistics: Statistics) -> Any:
    """Freezes the running statistics of an environment at the given ones, in a new wrapper if it does not normalize.

    An environment whose observations have another shape is returned unchanged.
    """
    found = list(normalizers(env))
    if not found:
        space = env.single_observation_space if isinstance(env, VectorEnv) else env.observation_space
        if space.shape != statistics.mean.shape:
            return env
        wrapper = NormalizeVectorObservation if isinstance(env, VectorEnv) else NormalizeObservation
        env = wrapper(env, epsilon=statistics.epsilon)
        found = [env]
    for layer in found:
        if np.shape(layer.obs_rms.mean) == statistics.mean.shape:
            layer.obs_rms.mean, layer.obs_rms.var = statistics.mean.copy(), statistics.variance.copy()
            layer.obs_rms.count = statistics.count
            layer.update_running_mean = False
    return env


def with_raw_rewards(env: Any) -> Any:
    """Makes an environment return the rewards from inside its ``NormalizeReward``, whatever wrappers are outside.

    The wrapper stays in place, as other wrappers may depend on it. Returns are in the unit of the environment.
    """
    for layer in wrapper_chain(env):
        inner = sub_envs(layer)
        inner[:] = [with_raw_rewards(each) for each in inner]
    scalers = [layer for layer in wrapper_chain(env) if _scales_rewards(layer)]
    if not scalers:
        return env
    wrapper: Any = _VectorRewardMemory if isinstance(env, VectorEnv) else _RewardMemory
    inside, outside = wrapper(scalers[-1].env), wrapper(env)
    scalers[-1].env, outside.source = inside, inside
    return outside


class _Memory:
    """Mixin for a wrapper that remembers the last reward, or returns the one that its source remembers."""

    env: Any
    source: _Memory | None = None
    last_reward: Any = 0.0

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        if self.source is not None:
            return observation, self.source.last_reward, *rest
        self.last_reward = copy.deepcopy(reward)  # outer wrappers may change the reward in place
        return observation, reward, *rest


class _RewardMemory(_Memory, gym.Wrapper[Any, Any, Any, Any]): ...


class _VectorRewardMemory(_Memory, AnyVectorWrapper): ...
