"""Fingerprints of the states of an episode, which tell whether a replay comes out as it was played.

Equal bytes are a replay. Where bytes differ, numbers may differ by rounding: some simulators compute the last bits
differently once they have rendered. Such differences are compared with what the number varies by in the episode, and
integers, pictures and text must be equal in any case.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode

NUM_SUMS = 16  # further floating-point numbers of an observation are added, with random signs, to one of so many sums
STATE = np.dtype([("discrete", np.uint32), ("numbers", np.float32, (NUM_SUMS,))])
RANGE_TOLERANCE = 1e-5  # of the range of a number in the episode
ROUNDING_TOLERANCE = 1e-6  # of its largest absolute value: some last bits of 32-bit numbers
REWARD_TOLERANCE = 1e-8  # of the largest absolute reward, unless the rewards are 32-bit numbers
AS_BYTES = struct.Struct("=dI").pack
Floats: TypeAlias = NDArray[np.float64]
NO_NUMBERS = np.empty(0, np.float32)


class StateFingerprint(NamedTuple):
    """What is recorded of a state, so that a replay can be compared with it."""

    digest: int  # CRC-32 over the bytes of the observation and the reward, independent of the order of keys
    discrete: int  # checksum of all parts but the floating-point numbers, and of the count of these numbers
    numbers: NDArray[Any]  # up to 16 floating-point numbers; of more, 16 sums


def fingerprint(observation: Any, reward: float) -> StateFingerprint:
    """Returns the fingerprint of an observation and the reward that led to it (0 after a reset).

    The observation is an array, a number or text, or dicts and tuples of them.
    """
    discrete, continuous, floats = 0, 0, []
    for leaf in _leaves(observation):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":
            floats.append(leaf.flatten())  # a copy, as some environments change their observation in place
            continuous = zlib.crc32(leaf.tobytes(), continuous)
        else:
            discrete = zlib.crc32(leaf.encode() if isinstance(leaf, str) else leaf.tobytes(), discrete)
    numbers = floats[0] if len(floats) == 1 else np.concatenate([NO_NUMBERS, *floats])
    discrete = zlib.crc32(b"%d" % numbers.size, discrete)
    if numbers.size > NUM_SUMS:
        numbers = _sums(numbers)
    return StateFingerprint(zlib.crc32(AS_BYTES(reward, discrete), continuous), discrete, numbers)


def stack_states(fingerprints: Sequence[StateFingerprint]) -> NDArray[np.void]:
    """Returns the states without their digests, as ``Episode.states`` keeps them: dtype ``STATE``, ``[T]``."""
    states = np.empty(len(fingerprints), STATE)
    states["discrete"] = [each.discrete for each in fingerprints]
    states["numbers"] = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for row, each in zip(states["numbers"], fingerprints, strict=True):
            row[: each.numbers.size] = each.numbers
    return states


def _sums(numbers: NDArray[Any]) -> Floats:
    padded = np.zeros(-(-numbers.size // NUM_SUMS) * NUM_SUMS)
    padded[: numbers.size] = numbers
    padded *= _signs(padded.size)
    with np.errstate(over="ignore", invalid="ignore"):
        return cast(Floats, padded.reshape(-1, NUM_SUMS).sum(axis=0))


@lru_cache(maxsize=4)
def _signs(count: int) -> Floats:
    return np.random.default_rng(0).choice((-1.0, 1.0), count)


def _leaves(observation: Any) -> list[NDArray[Any] | str]:
    if isinstance(observation, np.ndarray):  # most often
        return [observation]
    if isinstance(observation, dict):
        return [leaf for key in sorted(observation, key=str) for leaf in _leaves(observation[key])]
    if isinstance(observation, tuple | list):
        return [leaf for entry in observation for leaf in _leaves(entry)]
    return [observation if isinstance(observation, str) else np.asarray(observation)]


class ReplayCheck:
    """Compares the states of a replay with those of the episode.

    Args:
        episode: Episode; without digests all states pass, and without states only equal bytes do.
    """

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self._reward_scale = float(np.max(np.abs(episode.rewards), initial=0.0))
        self._tolerance: NDArray[np.float32] | None = None
        if episode.states is not None:
            numbers = episode.states["numbers"]
            with np.errstate(invalid="ignore", over="ignore"):
                spread, largest = np.ptp(numbers, axis=0), np.abs(numbers).max(axis=0)
                self._tolerance = RANGE_TOLERANCE * spread + ROUNDING_TOLERANCE * largest

    def passes(self, step: int, observation: Any, reward: float) -> bool:
        """Returns whether an observation and the reward that led to it (0 after a reset) are those of the episode."""
        episode = self._episode
        if episode.digests is None:
            return True
        found = fingerprint(observation, reward)
        if int(episode.digests[step]) == found.digest:
            return True
        if episode.states is None or self._tolerance is None:
            return False
        (numbers,) = stack_states([found])["numbers"]
        if found.discrete != episode.states["discrete"][step] or not self._is_reward(step, reward):
            return False
        recorded = episode.states["numbers"][step]
        with np.errstate(invalid="ignore"):
            is_near = np.abs(numbers - recorded) <= self._tolerance
        return bool(np.all(is_near | (numbers == recorded) | (np.isnan(numbers) & np.isnan(recorded))))

    def _is_reward(self, step: int, reward: float) -> bool:
        recorded = float(self._episode.rewards[step - 1]) if step else 0.0
        if recorded == reward or (np.isnan(recorded) and np.isnan(reward)):
            return True
        has_32_bits = float(np.float32(reward)) == reward and float(np.float32(recorded)) == recorded
        tolerance = ROUNDING_TOLERANCE if has_32_bits else REWARD_TOLERANCE
        return abs(reward - recorded) <= tolerance * self._reward_scale
