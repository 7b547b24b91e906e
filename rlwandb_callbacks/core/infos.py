"""Numbers of an environment: its rewards, and those of its ``info`` as numbers of an episode and of an evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_KEYS = 32
NOT_IN_NAMES = re.compile(r"[^\w.-]+")
SUMMED = re.compile(r"reward|cost", re.IGNORECASE)
TOLD_ELSEWHERE = ("is_success", "success", "TimeLimit.truncated")


@dataclass(frozen=True)
class InfoNumbers:
    """One key of ``info`` over an episode.

    Args:
        mean: Over the steps that had the key.
        last: At the last of these.
        total: Their sum.
    """

    mean: float
    last: float
    total: float


class InfoTally:
    """Sums up the numeric keys of ``info`` while an episode is played.

    Arrays, texts, containers and numbers that are not finite are left out, and so is what is logged under another name
    (``success``).

    Args:
        keys: The keys to keep; None for the first 32 numeric ones.

    Example:
        >>> tally = InfoTally()
        >>> for height in (1.0, 3.0):
        ...     tally.add({"height": height, "name": "hopper"})
        >>> tally.numbers()
        {'height': InfoNumbers(mean=2.0, last=3.0, total=4.0)}
    """

    def __init__(self, keys: Sequence[str] | None = None) -> None:
        self._keys = None if keys is None else frozenset(keys)
        self._seen: dict[str, list[float]] = {}

    def add(self, info: Mapping[str, Any]) -> None:
        """Takes the ``info`` of one step."""
        if self._keys is not None and not self._keys:
            return
        for key, value in info.items():
            number = _number(value)
            if number is None or not self._wants(str(key)):
                continue
            entry = self._seen.setdefault(str(key), [0.0, 0.0, 0.0])
            entry[0] += number
            entry[1] += 1.0
            entry[2] = number

    def _wants(self, key: str) -> bool:
        if self._keys is not None:
            return key in self._keys
        return key in self._seen or (len(self._seen) < MAX_KEYS and key not in TOLD_ELSEWHERE)

    def numbers(self) -> dict[str, InfoNumbers]:
        """What the keys came to."""
        return {key: InfoNumbers(total / count, last, total) for key, (total, count, last) in self._seen.items()}


def reward_of(given: Any) -> float:
    """Takes a reward as one number: arrays of one element, of whatever shape, are what many environments give.

    Raises:
        TypeError: If it is none.

    Example:
        >>> reward_of(np.array([0.5]))
        0.5
    """
    try:
        return float(np.ravel(given)[0] if np.ndim(given) and np.size(given) == 1 else given)
    except (TypeError, ValueError) as error:
        raise TypeError(f"The environment gave the reward {given!r}; it must be one number.") from error


def _number(value: Any) -> float | None:
    is_scalar = isinstance(value, int | float | np.number | np.bool_)
    if not is_scalar and not (isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf"):
        return None
    if isinstance(value, np.complexfloating):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def summarize_infos(of_episodes: Sequence[Mapping[str, InfoNumbers]]) -> dict[str, float]:
    """Means over the episodes that had a key.

    Args:
        of_episodes: What each episode's keys came to.

    Returns:
        ``info_<key>_mean`` and ``info_<key>_last`` for each key, and ``info_<key>_sum`` for those that have ``reward``
        or ``cost`` in their name, as the parts of a reward add up to the return.

    Example:
        >>> summarize_infos([{"reward_ctrl": InfoNumbers(-0.5, -1.0, -10.0)}])
        {'info_reward_ctrl_mean': -0.5, 'info_reward_ctrl_last': -1.0, 'info_reward_ctrl_sum': -10.0}
    """
    summary: dict[str, float] = {}
    for key in dict.fromkeys(key for of_episode in of_episodes for key in of_episode):
        told = [of_episode[key] for of_episode in of_episodes if key in of_episode]
        name = "info_" + NOT_IN_NAMES.sub("_", key)
        summary[f"{name}_mean"] = float(np.mean([numbers.mean for numbers in told]))
        summary[f"{name}_last"] = float(np.mean([numbers.last for numbers in told]))
        if SUMMED.search(key):
            summary[f"{name}_sum"] = float(np.mean([numbers.total for numbers in told]))
    return summary
