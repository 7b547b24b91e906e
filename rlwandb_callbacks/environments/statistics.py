"""Statistics with which training environments normalize observations.

They are read from Gymnasium's ``NormalizeObservation``, the ``VecNormalize`` of Stable-Baselines3 and any other layer
with ``obs_rms``, and from the transforms ``ObservationNorm``, ``VecNorm`` and ``VecNormV2`` of TorchRL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rlwandb_callbacks.environments.wrappers import has_own

TRAINING_NAMES = ("envs", "env", "train_envs", "train_env", "training_envs", "training_env")
EVALUATION_NAMES = ("eval", "val", "test")
INNER_NAMES = ("env", "venv", "base_env")  # attributes in which layers of environments hold the next one
RMS_NAMES = ("obs_rms", "ob_rms")
RMS_FIELDS = ("mean", "var", "count")
TORCHRL_NORMS = ("ObservationNorm", "VecNorm", "VecNormV2")
TORCHRL_TRANSFORM = "_transform"  # submodule of a TransformedEnv
TORCHRL_KEY = "observation"  # of observations that are not in a dict
TORCHRL_REWARD = "reward"


@dataclass(frozen=True)
class Statistics:
    """Statistics of observations at one moment; mean and variance (divisor n) have the shape of one observation.

    Observations become ``(observation - mean) / sqrt(variance + epsilon)``, clipped to ``[-clip, clip]``.
    """

    mean: NDArray[np.floating[Any]]
    variance: NDArray[np.floating[Any]]
    count: float
    epsilon: float = 1e-8
    clip: float = np.inf

    def normalize(self, observations: Any) -> NDArray[np.float32]:
        """Normalizes observations, of shape ``[..., *mean.shape]``."""
        normalized = (np.asarray(observations) - self.mean) / np.sqrt(self.variance + self.epsilon)
        clipped: NDArray[np.float32] = np.clip(normalized, -self.clip, self.clip).astype(np.float32)
        return clipped


ObservationStatistics: TypeAlias = Statistics | Mapping[str, Statistics]
"""Statistics of observations, or of some entries of observations that are dicts."""


def part_for(statistics: ObservationStatistics, space: spaces.Space[Any]) -> ObservationStatistics | None:
    """Returns the statistics that fit the observations of a space; None if they do not fit."""
    if isinstance(statistics, Statistics):
        return statistics if _fits(statistics, space) else None
    if isinstance(space, spaces.Dict):
        fits = all(key in space.spaces and _fits(part, space[key]) for key, part in statistics.items())
        return statistics if fits else None
    return part_for(statistics[TORCHRL_KEY], space) if list(statistics) == [TORCHRL_KEY] else None


def _fits(statistics: Statistics, space: spaces.Space[Any]) -> bool:
    """Returns whether statistics have the shape of observations, or are one number for all their elements."""
    return isinstance(space, spaces.Box) and statistics.mean.shape in (space.shape, ())


def merge_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Returns the statistics of all observations together (Chan et al. 1979)."""
    if len(parts) == 1:
        return parts[0]
    count = sum(part.count for part in parts)
    mean = np.asarray(sum(part.mean * part.count for part in parts) / count)
    variance = sum((part.variance + (part.mean - mean) ** 2) * part.count for part in parts) / count
    return Statistics(mean, np.asarray(variance), count, parts[0].epsilon, parts[0].clip)


def training_statistics(
    module: Any, evaluation_env: Any = None, policy: Any = None
) -> tuple[str, ObservationStatistics] | None:
    """Finds a normalizing environment: the attribute of the module and its current statistics; None if there is none.

    ``TRAINING_NAMES`` come first; names with a part of ``EVALUATION_NAMES`` are skipped. Environments of objects that
    the module holds come after its own, then the environment of the policy, which a model of Stable-Baselines3 has, and
    last the value of ``evaluation.env``. The sub-environments of an ``AsyncVectorEnv`` are in other processes and are
    not searched; wrappers around it are.
    """
    own = attributes_of(module)
    candidates = [(f"self.{name}", env) for name, env in _environments(own)]
    for name, holder in own.items():
        if not is_environment(holder) and not name.startswith("_") and not _is_evaluation(name):
            candidates += [(f"self.{name}.{inner}", env) for inner, env in _environments(attributes_of(holder))]
    candidates += [(f"evaluation.policy.{name}", env) for name, env in _environments(attributes_of(policy))]
    for name, env in [*candidates, ("evaluation.env", evaluation_env)]:
        found = statistics_of(env)
        if found is not None:
            return name, found
    return None


def _environments(attributes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns name and value of the attributes that are environments of a training, those of the usual names first."""
    names = [name for name in TRAINING_NAMES if name in attributes]
    names += [name for name in attributes if name not in names and not _is_evaluation(name)]
    return [(name, attributes[name]) for name in names if is_environment(attributes[name])]


def _is_evaluation(name: str) -> bool:
    return any(part in name for part in EVALUATION_NAMES)


def is_environment(value: Any) -> bool:
    """Returns whether a value is an environment or a vector of any library."""
    methods = (getattr(type(value), name, None) for name in ("reset", "step"))
    return isinstance(value, gym.Env | VectorEnv) or all(map(callable, methods))


def attributes_of(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object, and the submodules of one of torch; none for objects without a dict."""
    attributes = dict(getattr(value, "__dict__", {})) if not isinstance(value, type) else {}
    submodules = attributes.get("_modules")
    return {**attributes, **submodules} if isinstance(submodules, Mapping) else attributes


def layers(env: Any) -> Iterator[Any]:
    """Yields an environment of any library and all environments inside it, from the outermost inwards."""
    waiting, seen = [env], set()
    while waiting:
        layer = waiting.pop(0)
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        attributes = attributes_of(layer)
        inside = attributes.get("envs")
        waiting += [attributes[name] for name in INNER_NAMES if name in attributes]
        waiting += inside if isinstance(inside, list | tuple) else []


def statistics_of(env: Any) -> ObservationStatistics | None:
    """Returns the current statistics with which an environment normalizes observations; None if it does not."""
    found = [statistics for layer in layers(env) if (statistics := _of_layer(layer)) is not None]
    if not found:
        return None
    arrays = [each for each in found if isinstance(each, Statistics)]
    return merge_statistics(arrays) if len(arrays) == len(found) else found[0]


def _of_layer(layer: Any) -> ObservationStatistics | None:
    rms = running_statistics(layer)
    if rms is None:
        return _of_transforms(attributes_of(layer).get(TORCHRL_TRANSFORM))
    if not getattr(layer, "norm_obs", True):
        return None
    if isinstance(rms, Mapping):
        return {str(key): _of_rms(part, layer) for key, part in rms.items()}
    return _of_rms(rms, layer)


def running_statistics(layer: Any) -> Any:
    """Returns the running mean and variance of observations that a layer itself holds, by key for dicts, or None."""
    for name in RMS_NAMES:
        rms = getattr(layer, name, None) if has_own(layer, name) else None
        parts: Iterable[Any] = rms.values() if isinstance(rms, Mapping) else [rms]
        if rms and all(hasattr(part, each) for part in parts for each in RMS_FIELDS):
            return rms
    return None


def _of_rms(rms: Any, layer: Any) -> Statistics:
    """Reads running statistics, and the tolerance and limit that the layer or, as in Tianshou, they themselves have."""
    epsilon = _first_number([(layer, "epsilon"), (rms, "eps")], 1e-8)
    clip = _first_number([(layer, "clip_obs"), (layer, "clipob"), (rms, "clip_max")], np.inf)
    return Statistics(np.array(rms.mean), np.array(rms.var), float(rms.count), epsilon, clip)


def _first_number(places: Sequence[tuple[Any, str]], default: float) -> float:
    found = (attributes_of(owner).get(name) for owner, name in places)
    return next((float(value) for value in found if isinstance(value, int | float)), default)


def _of_transforms(transform: Any) -> Mapping[str, Statistics] | None:
    """Reads the normalizing transforms of TorchRL, which may follow one another on the same key."""
    found: dict[str, Statistics] = {}
    for each in _flat(transform):
        if type(each).__name__ in TORCHRL_NORMS and list(each.in_keys) == list(each.out_keys):
            for key in each.in_keys:
                part = _of_transform(each, key) if isinstance(key, str) and key != TORCHRL_REWARD else None
                if part is not None:
                    found[key] = _chained(found[key], part) if key in found else part
    return found or None


def _flat(transform: Any) -> list[Any]:
    parts = attributes_of(transform).get("transforms")
    return [transform] if parts is None else [each for part in parts for each in _flat(part)]


def _of_transform(transform: Any, key: str) -> Statistics | None:
    """Reads ``loc`` and ``scale`` of one key; None as long as they are not initialized."""
    try:
        loc, scale = (getattr(transform, name) for name in ("loc", "scale"))
        loc, scale = (part if type(transform).__name__ == TORCHRL_NORMS[0] else part.get(key) for part in (loc, scale))
        loc, scale = (np.asarray(part.detach().cpu(), dtype=np.float64) for part in (loc, scale))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return None
    if not bool(transform.standard_normal):  # observation * scale + loc
        loc, scale = -loc / scale, 1 / scale
    return Statistics(loc, scale**2, 1.0, epsilon=0.0)


def _chained(first: Statistics, second: Statistics) -> Statistics:
    """Returns the statistics that normalize like one after the other, without a limit in between."""
    scale = np.sqrt(first.variance)
    return Statistics(first.mean + scale * second.mean, first.variance * second.variance, 1.0, epsilon=0.0)
