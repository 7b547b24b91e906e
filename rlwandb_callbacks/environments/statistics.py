"""Statistics with which training environments normalize observations.

They are read from Gymnasium's ``NormalizeObservation``, the ``VecNormalize`` of Stable-Baselines3 and any other layer
with ``obs_rms``, and from the transforms ``ObservationNorm``, ``VecNorm`` and ``VecNormV2`` of TorchRL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlwandb_callbacks.core.infos import without_tensor
from rlwandb_callbacks.environments.held_environments import (
    attributes_of,
    held_environments,
    is_environment,
    is_for_evaluation,
    layers,
)
from rlwandb_callbacks.environments.wrappers import has_own

FEW_OBSERVATIONS = 10  # such as those of an environment that was only reset
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


@dataclass(frozen=True)
class Source:
    """An environment that normalizes observations: where it is held, and its current statistics."""

    name: str
    env: Any
    statistics: ObservationStatistics

    @property
    def count(self) -> float:
        """Number of observations that it has normalized; infinite if its statistics were given."""
        statistics = self.statistics
        parts = [statistics] if isinstance(statistics, Statistics) else statistics.values()
        return max((part.count for part in parts), default=0.0)

    @property
    def is_used(self) -> bool:
        """Whether the statistics are more than those of an environment that was made and perhaps reset."""
        statistics = self.statistics
        parts = [statistics] if isinstance(statistics, Statistics) else statistics.values()
        are_initial = all(np.all(part.mean == 0) and np.all(part.variance == 1) for part in parts)
        return self.count >= FEW_OBSERVATIONS or (self.count < 1 and not are_initial)


def training_statistics(
    module: Any,
    evaluation_env: Any = None,
    policy: Any = None,
    fits: Callable[[ObservationStatistics], bool] = lambda _: True,
    applied: Any = None,
) -> tuple[str, ObservationStatistics] | None:
    """Finds the normalizing environment of a training: its path and its current statistics; None if there is none.

    The environment of ``evaluation.env`` comes first, if it has seen observations, and unless its name says that it is
    not for training (see ``is_for_evaluation``). Of all others, wherever the module, its data module or the policy hold
    them, those whose statistics fit come first, then those with the id of ``evaluation.env``, then the one that has
    seen most observations. The sub-environments of an ``AsyncVectorEnv`` are in other processes and are not searched;
    wrappers around it are.

    A policy object that itself normalizes by one layer of its environment was trained behind that layer: what the other
    layers of this environment do is left to find, and no other environment but that of ``evaluation.env`` is searched.

    Args:
        module: The LightningModule.
        evaluation_env: The value of ``evaluation.env``, or of the attribute that it names.
        policy: The value of ``evaluation.policy``.
        fits: Returns whether statistics can be used in the evaluation.
        applied: The layer by whose statistics the policy object itself normalizes observations, if it does.
    """
    sources = normalizing_environments(module, evaluation_env, policy, applied)
    if not sources:
        return None
    named = next((each for each in sources if each.env is evaluation_env), None)
    names = [name for name, value in attributes_of(module).items() if value is evaluation_env]
    if named is not None and named.is_used and fits(named.statistics) and not any(map(is_for_evaluation, names)):
        return named.name, named.statistics
    ids = _ids(evaluation_env)

    def rank(source: Source) -> tuple[bool, bool, float]:
        return fits(source.statistics), not ids or not (own := _ids(source.env)) or bool(ids & own), source.count

    best = max(sources, key=rank)
    return best.name, best.statistics


def normalizing_environments(
    module: Any, evaluation_env: Any = None, policy: Any = None, applied: Any = None
) -> list[Source]:
    """Returns the environments that normalize observations, the nearest ones to the module first.

    See :func:`training_statistics`.
    """
    trainer = getattr(module, "_trainer", None)
    roots = [("self", module), ("evaluation.policy", policy)]
    roots += [(f"trainer.{name}", getattr(trainer, name, None)) for name in ("datamodule", "train_dataloader")]
    found = [each for name, root in roots if root is not None for each in held_environments(root, name)]
    if is_environment(evaluation_env) and all(env is not evaluation_env for _, env in found):
        found.append(("evaluation.env", evaluation_env))
    sources: dict[int, Source] = {}
    for name, env in found:
        if applied is not None and env is not evaluation_env and all(layer is not applied for layer in layers(env)):
            continue
        statistics = None
        with contextlib.suppress(Exception):  # of an environment of any library, whose statistics may have no numbers
            statistics = statistics_of(env, applied)
        if statistics is not None:
            sources.setdefault(id(env), Source(name, env, statistics))
    return list(sources.values())


def _ids(env: Any) -> set[str]:
    """Returns the ids of an environment, a vector, or what one is made from; none if they are not known."""
    if isinstance(env, str):
        return {env}
    found = [getattr(getattr(layer, "spec", None), "id", None) for layer in ([env] if env is None else layers(env))]
    return {each for each in found if isinstance(each, str)}


def statistics_of(env: Any, applied: Any = None) -> ObservationStatistics | None:
    """Returns the current statistics with which an environment normalizes observations; None if it does not.

    The layer ``applied`` is left out, for which a policy object stands in.
    """
    others = (layer for layer in layers(env) if layer is not applied)
    found = [statistics for layer in others if (statistics := _of_layer(layer)) is not None]
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
    mean, variance = (np.array(without_tensor(each)) for each in (rms.mean, rms.var))
    return Statistics(mean, variance, float(rms.count), epsilon, clip)


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
    return Statistics(loc, scale**2, _count_of_transform(transform, key), epsilon=0.0)


def _count_of_transform(transform: Any, key: str) -> float:
    """Returns the observations that a transform has seen; infinite for values that were given to it."""
    counts = attributes_of(transform).get("_count")
    with contextlib.suppress(AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        counts = attributes_of(transform)["_td"].get(f"{key}_count") if counts is None else counts
        return float((counts if hasattr(counts, "item") else counts.get(key)).max())
    return np.inf


def _chained(first: Statistics, second: Statistics) -> Statistics:
    """Returns the statistics that normalize like one after the other, without a limit in between."""
    scale = np.sqrt(first.variance)
    count = min(first.count, second.count)
    return Statistics(first.mean + scale * second.mean, first.variance * second.variance, count, epsilon=0.0)
