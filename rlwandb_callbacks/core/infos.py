"""Rewards as numbers, and summaries of the numeric keys of ``info`` over an episode and over an evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlwandb_callbacks.core.key_names import valid_name

MAX_KEYS = 32
SUMMED = re.compile(r"reward|cost", re.IGNORECASE)
LOGGED_ELSEWHERE = ("is_success", "success", "TimeLimit.truncated")


@dataclass(frozen=True)
class InfoSummary:
    """Summary of one key of ``info`` over the steps of an episode that have the key."""

    mean: float
    last: float
    total: float


class InfoAccumulator:
    """Summarizes the given keys of ``info``, by default the first 32 numeric ones, while an episode is played.

    Arrays, strings, containers and numbers that are not finite are ignored, and so are keys that are logged under
    another name (``success``).

    Example:
        >>> tally = InfoAccumulator()
        >>> for height in (1.0, 3.0):
        ...     tally.add({"height": height, "name": "hopper"})
        >>> tally.numbers()
        {'height': InfoSummary(mean=2.0, last=3.0, total=4.0)}
    """

    def __init__(self, keys: Sequence[str] | None = None) -> None:
        self._keys = None if keys is None else frozenset(keys)
        self._sums: dict[str, list[float]] = {}  # sum, count and last value by key

    def add(self, info: Mapping[str, Any]) -> None:
        """Adds the ``info`` of one step."""
        if self._keys is not None and not self._keys:
            return
        for key, value in info.items():
            number = _number(value)
            if number is not None and self._selects(str(key)):
                total, count, _ = self._sums.get(str(key), [0.0, 0.0, 0.0])
                self._sums[str(key)] = [total + number, count + 1.0, number]

    def _selects(self, key: str) -> bool:
        if self._keys is not None:
            return key in self._keys
        return key in self._sums or (len(self._sums) < MAX_KEYS and key not in LOGGED_ELSEWHERE)

    def numbers(self) -> dict[str, InfoSummary]:
        """Returns the summary of each key."""
        return {key: InfoSummary(total / count, last, total) for key, (total, count, last) in self._sums.items()}


def reward_of(reward: Any) -> float:
    """Returns a reward as a float; many environments return an array with one element.

    Example:
        >>> reward_of(np.array([0.5]))
        0.5
    """
    try:
        return float(np.ravel(reward)[0] if np.ndim(reward) and np.size(reward) == 1 else reward)
    except (TypeError, ValueError) as error:
        raise TypeError(f"The environment returned the reward {reward!r}; it must be a single number.") from error


def _number(value: Any) -> float | None:
    is_scalar = isinstance(value, int | float | np.integer | np.floating | np.bool_)
    if not is_scalar and not (isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf"):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def summarize_infos(episodes: Sequence[Mapping[str, InfoSummary]]) -> dict[str, float]:
    """Returns the mean summary of each key over the episodes that have it.

    The result has ``info_<key>_mean`` and ``info_<key>_last`` for each key, and ``info_<key>_sum`` for keys that
    contain ``reward`` or ``cost``, because the parts of a reward add up to the return.

    Example:
        >>> summarize_infos([{"reward_ctrl": InfoSummary(-0.5, -1.0, -10.0)}])
        {'info_reward_ctrl_mean': -0.5, 'info_reward_ctrl_last': -1.0, 'info_reward_ctrl_sum': -10.0}
    """
    summary: dict[str, float] = {}
    for key in dict.fromkeys(key for infos in episodes for key in infos):
        summaries = [infos[key] for infos in episodes if key in infos]
        name = f"info_{valid_name(key)}"
        summary[f"{name}_mean"] = float(np.mean([numbers.mean for numbers in summaries]))
        summary[f"{name}_last"] = float(np.mean([numbers.last for numbers in summaries]))
        if SUMMED.search(key):
            summary[f"{name}_sum"] = float(np.mean([numbers.total for numbers in summaries]))
    return summary
