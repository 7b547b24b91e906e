"""Normalizing wrappers in an evaluation: frozen observation statistics of training, and unscaled rewards."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rlwandb_callbacks.core.class_names import has_base_named
from rlwandb_callbacks.environments.closing import closing
from rlwandb_callbacks.environments.held_environments import layers
from rlwandb_callbacks.environments.statistics import ObservationStatistics, Statistics, part_for, running_statistics
from rlwandb_callbacks.environments.wrappers import AnyVectorWrapper, observation_space_of, sub_envs, wrapper_chain


def normalizers(env: Any) -> Iterator[Any]:
    """Yields the wrappers with running statistics of observations, also those inside a vector."""
    return (layer for layer in layers(env) if running_statistics(layer) is not None)


def normalized_in_subprocesses(env: Any) -> list[str]:
    """Returns what a vector normalizes in its subprocesses, where statistics can be neither read nor set.

    To find out, one more sub-environment is made and closed.

    Returns:
        ``"observations"``, ``"rewards"``, both, or nothing.
    """
    functions = getattr(env.unwrapped, "env_fns", ()) if isinstance(env, VectorEnv) else ()
    if not functions or sub_envs(env.unwrapped):
        return []
    with closing(functions[0]()) as single:
        found = {
            "observations": next(normalizers(single), None) is not None,
            "rewards": any(map(_scales_rewards, wrapper_chain(single))),
        }
    return [name for name, is_normalized in found.items() if is_normalized]


def _scales_rewards(layer: Any) -> bool:
    return has_base_named(type(layer), "NormalizeReward")


def normalizes(env: Any) -> bool:
    """Returns whether an environment normalizes observations, by running statistics or by given ones."""
    is_frozen = any(isinstance(layer, _FrozenNormalization) for layer in layers(env))
    return is_frozen or next(normalizers(env), None) is not None


def with_statistics(env: Any, statistics: ObservationStatistics) -> Any:
    """Freezes the running statistics of an environment at the given ones, in a new wrapper if it does not normalize.

    The new wrapper is the outermost one at which the statistics have the shape of the observations: inside a frame
    stack, if the training normalizes single frames. An environment without such a place is returned unchanged.
    """
    found = list(normalizers(env))
    if not found:
        return _normalized(env, statistics)
    for layer in found:
        if isinstance(statistics, Statistics) and np.shape(layer.obs_rms.mean) == statistics.mean.shape:
            layer.obs_rms.mean, layer.obs_rms.var = statistics.mean.copy(), statistics.variance.copy()
            layer.obs_rms.count = statistics.count
            layer.update_running_mean = False
    return env


def can_apply(env: Any, statistics: ObservationStatistics) -> bool:
    """Returns whether :func:`with_statistics` can use the statistics in an environment."""
    return Places.of(env).accept(statistics)


@dataclass(frozen=True)
class Places:
    """Where an environment normalizes observations, or can be made to.

    Args:
        shapes: Shapes of its running statistics.
        spaces: Spaces of the observations that can be normalized, from the outermost inwards, if it has none.
    """

    shapes: tuple[tuple[int, ...], ...]
    spaces: tuple[spaces.Space[Any], ...]

    @classmethod
    def of(cls, env: Any) -> Places:
        """Returns the places in an environment."""
        shapes = tuple(np.shape(layer.obs_rms.mean) for layer in normalizers(env))
        return cls(shapes, () if shapes else tuple(observation_space_of(each) for each in _normalizable(env)))

    @property
    def neutral(self) -> Statistics | None:
        """Statistics that switch the normalization of the environment off; None if it has none."""
        shape = self.shapes[0] if self.shapes else None
        return None if shape is None else Statistics(np.zeros(shape), np.ones(shape), np.inf, epsilon=0.0)

    def accept(self, statistics: ObservationStatistics) -> bool:
        """Returns whether statistics have the shape of any of them."""
        if self.shapes:
            return isinstance(statistics, Statistics) and statistics.mean.shape in self.shapes
        return any(part_for(statistics, space) is not None for space in self.spaces)


def _normalizable(env: Any) -> Iterator[Any]:
    """Yields the layers whose observations can be normalized, also those inside a vector; the first of each level.

    Wrappers around them must pass on numbers with decimal places.
    """
    for layer in wrapper_chain(env):
        yield layer
        space = observation_space_of(layer)
        if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
            return
        for single in sub_envs(layer)[:1]:
            yield from _normalizable(single)


def _normalized(env: Any, statistics: ObservationStatistics) -> Any:
    """Normalizes the outermost observations that statistics fit, in a new wrapper."""
    place = next((each for each in _normalizable(env) if part_for(statistics, observation_space_of(each))), None)
    if place is None:
        return env
    if place is env:
        part: Any = part_for(statistics, observation_space_of(env))
        return (_FrozenVector if isinstance(env, VectorEnv) else _Frozen)(env, part)
    for layer in wrapper_chain(env):
        inner: Any = sub_envs(layer)
        inner[:] = [_normalized(each, statistics) for each in inner]
        if not inner and layer is not place and getattr(layer, "env", None) is place:
            layer.env = _normalized(place, statistics)
            break
    return env


class _FrozenNormalization:
    """Mixin for a wrapper that normalizes observations by given statistics."""

    env: Any

    def __init__(self, env: Any, statistics: ObservationStatistics) -> None:
        super().__init__(env)  # type: ignore[call-arg]  # of the wrapper
        self.statistics = statistics

    def _normalize(self, observations: Any) -> Any:
        if isinstance(self.statistics, Statistics):
            return self.statistics.normalize(observations)
        return {**observations, **{key: part.normalize(observations[key]) for key, part in self.statistics.items()}}

    def _normalized_space(self, space: spaces.Space[Any]) -> spaces.Space[Any]:
        if isinstance(self.statistics, Statistics):
            return spaces.Box(-self.statistics.clip, self.statistics.clip, space.shape, np.float32)
        parts = {
            key: spaces.Box(-part.clip, part.clip, space[key].shape, np.float32)  # type: ignore[index]  # a Dict
            for key, part in self.statistics.items()
        }
        return spaces.Dict({**space.spaces, **parts})  # type: ignore[attr-defined]  # a Dict

    def reset(self, **kwargs: Any) -> Any:
        observations, info = self.env.reset(**kwargs)
        return self._normalize(observations), info

    def step(self, action: Any) -> Any:
        observations, *rest = self.env.step(action)
        return self._normalize(observations), *rest


class _Frozen(_FrozenNormalization, gym.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: Any, statistics: ObservationStatistics) -> None:
        super().__init__(env, statistics)
        self.observation_space = self._normalized_space(env.observation_space)


class _FrozenVector(_FrozenNormalization, AnyVectorWrapper):
    def __init__(self, env: Any, statistics: ObservationStatistics) -> None:
        super().__init__(env, statistics)
        self.single_observation_space = self._normalized_space(env.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)


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
