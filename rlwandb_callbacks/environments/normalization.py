"""Normalising wrappers at evaluation: the statistics of training, frozen, and rewards in their own unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers import NormalizeObservation
from gymnasium.wrappers.vector import NormalizeObservation as NormalizeVectorObservation
from numpy.typing import NDArray

from rlwandb_callbacks.environments.copies import layers

if TYPE_CHECKING:
    AnyVectorWrapper: TypeAlias = VectorWrapper[Any, Any, Any]
else:
    AnyVectorWrapper = VectorWrapper  # takes no parameters in Gymnasium 1.1

TRAINING_NAMES = ("envs", "env", "train_envs", "train_env", "training_envs", "training_env")
FOR_EVALUATION = ("eval", "val", "test")


@dataclass(frozen=True)
class Statistics:
    """Running statistics of observations, as they were at one moment.

    Args:
        mean: Shape of one observation.
        variance: The same shape.
        count: Observations that they were made from.
        epsilon: Added to the variance under the root.
    """

    mean: NDArray[np.floating[Any]]
    variance: NDArray[np.floating[Any]]
    count: float
    epsilon: float = 1e-8


def merged(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of all observations together (Chan et al. 1979).

    Example:
        >>> one, other = Statistics(np.zeros(1), np.ones(1), 2.0), Statistics(np.full(1, 3.0), np.ones(1), 2.0)
        >>> both = merged([one, other])
        >>> float(both.mean[0]), float(both.variance[0]), both.count
        (1.5, 3.25, 4.0)
    """
    if len(parts) == 1:
        return parts[0]
    count = sum(part.count for part in parts)
    mean = np.asarray(sum(part.mean * part.count for part in parts) / count)
    square = sum((part.variance + (part.mean - mean) ** 2) * part.count for part in parts) / count
    return Statistics(mean, np.asarray(square), count, parts[0].epsilon)


def training_statistics(module: Any, given: Any = None) -> tuple[str, Statistics] | None:
    """Looks for a normalizing environment among a module's attributes.

    Names such as ``envs`` and ``env`` come first; those that speak of evaluation are left out. The environments of an
    ``AsyncVectorEnv`` live in other processes and are not asked; a wrapper around it is.

    Args:
        module: The LightningModule.
        given: The environment that ``evaluation.env`` names, where it is one; looked at last.

    Returns:
        The attribute's name and the statistics as they are now; None where there are none.
    """
    held = {name: value for name, value in vars(module).items() if isinstance(value, gym.Env | VectorEnv)}
    names = [name for name in TRAINING_NAMES if name in held]
    names += [name for name in held if name not in names and not any(word in name for word in FOR_EVALUATION)]
    for name, env in [*((f"self.{name}", held[name]) for name in names), ("evaluation.env", given)]:
        found = statistics_of(env)
        if found is not None:
            return name, found
    return None


def statistics_of(env: Any) -> Statistics | None:
    """The statistics that an environment normalizes observations by, now; None where it does not."""
    parts = [
        Statistics(
            np.array(layer.obs_rms.mean),
            np.array(layer.obs_rms.var),
            float(layer.obs_rms.count),
            float(getattr(layer, "epsilon", 1e-8)),
        )
        for layer in normalizers(env)
    ]
    return merged(parts) if parts else None


def normalizers(env: Any) -> Iterator[Any]:
    """The layers of an environment, and of those inside a vector, that hold running statistics of observations."""
    for layer in layers(env):
        if all(hasattr(getattr(layer, "obs_rms", None), name) for name in ("mean", "var", "count")):
            yield layer
        for inner in _inside(layer):
            yield from normalizers(inner)


def _inside(layer: Any) -> list[Any]:
    inner = getattr(layer, "envs", None) if isinstance(layer, VectorEnv) else None
    return inner if isinstance(inner, list) and not isinstance(layer, VectorWrapper) else []


def is_hidden(env: Any) -> bool:
    """Whether the environments of a vector normalize in processes of their own, where nothing reaches them.

    To find out, one more of them is made, and closed.
    """
    functions = getattr(env.unwrapped, "env_fns", ()) if isinstance(env, VectorEnv) else ()
    if not functions or _inside(env.unwrapped):
        return False
    single = functions[0]()
    try:
        return next(normalizers(single), None) is not None or any(map(_scales_rewards, layers(single)))
    finally:
        single.close()


def _scales_rewards(layer: Any) -> bool:
    return any(cls.__name__ == "NormalizeReward" for cls in type(layer).__mro__)


def with_statistics(env: Any, statistics: Statistics) -> Any:
    """Freezes an environment's running statistics at those given; one that has none is made to normalize by them.

    An environment whose observations have another shape is given back as it is.
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
    """Gives the rewards from inside an environment's ``NormalizeReward``, whatever lies outside of it.

    The wrapper itself stays, as others may need it; the returns of an episode are in the environment's own unit.
    """
    for layer in layers(env):
        inner = _inside(layer)
        inner[:] = [with_raw_rewards(each) for each in inner]
    scalers = [layer for layer in layers(env) if _scales_rewards(layer)]
    if not scalers:
        return env
    if isinstance(env, VectorEnv):
        vector_tap = _VectorTap(scalers[-1].env)
        scalers[-1].env = vector_tap
        return _RawVectorRewards(env, vector_tap)
    tap = _Tap(scalers[-1].env)
    scalers[-1].env = tap
    return _RawRewards(env, tap)


class _Tap(gym.Wrapper[Any, Any, Any, Any]):
    """Remembers the last reward."""

    last: Any = 0.0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, self.last, terminated, truncated, info = self.env.step(action)
        return observation, self.last, terminated, truncated, info


class _RawRewards(gym.Wrapper[Any, Any, Any, Any]):
    """Replaces the reward by what a tap inside has seen."""

    def __init__(self, env: gym.Env[Any, Any], tap: _Tap) -> None:
        super().__init__(env)
        self._tap = tap

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, self._tap.last, terminated, truncated, info


class _VectorTap(AnyVectorWrapper):
    """The same for a vector; rewards are copied, as the wrapper outside may change them in place."""

    last: Any = 0.0

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        self.last = np.array(rewards, dtype=np.float64)
        return observations, rewards, terminated, truncated, infos


class _RawVectorRewards(AnyVectorWrapper):
    """The same for a vector."""

    def __init__(self, env: VectorEnv[Any, Any, Any], tap: _VectorTap) -> None:
        super().__init__(env)
        self._tap = tap

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, _, terminated, truncated, infos = self.env.step(actions)
        return observations, self._tap.last, terminated, truncated, infos
