"""Rewards as numbers, and summaries of the numeric keys of ``info`` over an episode and over an evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlwandb_callbacks.core.key_names import valid_name

MAX_KEYS = 32
SUMMED = re.compile(r"reward|cost", re.IGNORECASE)
NUMBERS = (int, float, np.integer, np.floating, np.bool_)
LOGGED_ELSEWHERE = ("is_success", "success", "TimeLimit.truncated")
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
TOTAL_WORDS = {"total", "cum", "cumulative", "cumulated", "acc", "accum", "accumulated", "ep", "episode", "episodic"}
STEP_WORDS = {"step", "instant", "current"}
ID_WORDS = {"id", "ids", "uuid", "pid", "seed"}
MIN_STEPS_TO_JUDGE = 3
PROPORTIONAL = 1 - 1e-6  # squared cosine of two series, up to rounding in float32


@dataclass(frozen=True)
class InfoSummary:
    """Summary of one key of ``info`` over the steps of an episode that have the key.

    ``is_running_total`` is True if the values run like the return, so that they are totals since the start of the
    episode; False if they run like the reward or go up and down; None if they do neither. ``is_constant`` is True if
    all steps have the same value, False if they differ, and None if there are too few of them to say so.
    """

    mean: float
    last: float
    total: float
    is_running_total: bool | None = None
    is_constant: bool | None = field(default=False, compare=False, repr=False)


class _Sums:
    """Sums over the values of one key; if it is summed, also how they run beside the rewards and the return so far."""

    def __init__(self, *, compares: bool) -> None:
        self._compares = compares
        self._total = self._last = 0.0
        self._count = 0
        self._is_constant = True
        self._rises = self._falls = False
        self._follows_rewards = True
        self._values2 = self._rewards2 = self._returns2 = self._by_reward = self._by_return = 0.0

    def add(self, value: float, reward: float, return_so_far: float) -> None:
        if self._compares:
            self._compare(value, reward, return_so_far)
        self._is_constant &= not self._count or value == self._last
        self._total, self._last, self._count = self._total + value, value, self._count + 1

    def _compare(self, value: float, reward: float, return_so_far: float) -> None:
        if self._count:
            rises, falls = value > self._last, value < self._last
            self._rises, self._falls = self._rises or rises, self._falls or falls
            self._follows_rewards &= rises == (reward > 0) and falls == (reward < 0)
        self._values2 += value * value
        self._rewards2 += reward * reward
        self._returns2 += return_so_far * return_so_far
        self._by_reward += value * reward
        self._by_return += value * return_so_far

    def summary(self) -> InfoSummary:
        is_constant = None if self._is_constant and self._count < MIN_STEPS_TO_JUDGE else self._is_constant
        return InfoSummary(
            self._total / self._count, self._last, self._total, self._is_running_total(), is_constant=is_constant
        )

    def _is_running_total(self) -> bool | None:
        if self._count < MIN_STEPS_TO_JUDGE or not (self._values2 and self._rewards2 and self._returns2):
            return None
        like_reward = self._by_reward * self._by_reward >= PROPORTIONAL * self._values2 * self._rewards2
        like_return = self._by_return * self._by_return >= PROPORTIONAL * self._values2 * self._returns2
        if like_reward != like_return:
            return like_return
        return False if self._rises and self._falls and not self._follows_rewards else None


class InfoAccumulator:
    """Summarizes the given keys of ``info``, by default the first 32 numeric ones, while an episode is played.

    Arrays, strings, containers and numbers that are not finite are ignored, and so are keys that are logged under
    another name (``success``) and, unless they are given, those of identifiers (``env_id``, ``seed``).

    Example:
        >>> tally = InfoAccumulator()
        >>> for height in (1.0, 3.0):
        ...     tally.add({"height": height, "name": "hopper"})
        >>> tally.numbers()
        {'height': InfoSummary(mean=2.0, last=3.0, total=4.0, is_running_total=None)}
    """

    def __init__(self, keys: Sequence[str] | None = None) -> None:
        self._keys = None if keys is None else frozenset(keys)
        self._sums: dict[str, _Sums] = {}
        self._return = 0.0

    def add(self, info: Mapping[str, Any], reward: float = 0.0) -> None:
        """Adds the ``info`` and the reward of one step."""
        if self._keys is not None and not self._keys:
            return
        self._return += reward
        for key, value in info.items():
            name = str(key)
            number = _number(value) if self._selects(name) else None
            if number is not None:
                if name not in self._sums:
                    self._sums[name] = _Sums(compares=SUMMED.search(name) is not None)
                self._sums[name].add(number, reward, self._return)

    def _selects(self, key: str) -> bool:
        if self._keys is not None:
            return key in self._keys
        if key in self._sums:
            return True
        return len(self._sums) < MAX_KEYS and key not in LOGGED_ELSEWHERE and not _is_identifier(key)

    def numbers(self) -> dict[str, InfoSummary]:
        """Returns the summary of each key."""
        return {key: sums.summary() for key, sums in self._sums.items()}


def reward_of(reward: Any) -> float:
    """Returns a reward as a float; many environments return an array or a tensor with one element.

    Example:
        >>> reward_of(np.array([0.5]))
        0.5
    """
    if isinstance(reward, float):  # of most environments, also numpy.float64
        return float(reward)
    try:
        plain = without_tensor(reward)
        return float(np.ravel(plain)[0] if np.ndim(plain) and np.size(plain) == 1 else plain)
    except (TypeError, ValueError) as error:
        raise TypeError(f"The environment returned the reward {reward!r}; it must be a single number.") from error


def without_tensor(value: Any) -> Any:
    """Returns a tensor, of any device and with or without a gradient, as an array; any other value unchanged."""
    if not (callable(getattr(value, "detach", None)) and callable(getattr(value, "numpy", None))):
        return value
    plain = value.detach().cpu()
    return (plain.float() if "bfloat16" in str(plain.dtype) else plain).numpy()  # which numpy does not have


def success_of(info: Mapping[str, Any], keys: Sequence[str]) -> bool | None:
    """Returns the success that an ``info`` reports under the first key with a readable one; None if there is none.

    Success may be a boolean or number, a tensor, or several of them (of agents or goals), which must all be true.

    Example:
        >>> success_of({"is_success": np.array([1.0])}, ["is_success"]), success_of({"success": "no"}, ["success"])
        (True, None)
    """
    found = (_as_success(info[key]) for key in keys if key in info)
    return next((success for success in found if success is not None), None)


def _as_success(value: Any) -> bool | None:
    if isinstance(value, Mapping | list | tuple):
        parts = [_as_success(part) for part in (value.values() if isinstance(value, Mapping) else value)]
        return None if not parts or None in parts else all(parts)
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        flags = np.asarray(without_tensor(value), dtype=np.float64)
    except Exception:  # noqa: BLE001  # an object of the environment, which may raise anything
        return None
    return None if not flags.size or np.isnan(flags).any() else bool(flags.all())


def _is_identifier(key: str) -> bool:
    words = WORDS.findall(key)
    return bool(words) and words[-1].lower() in ID_WORDS


def _number(value: Any) -> float | None:
    if not isinstance(value, NUMBERS) and getattr(value, "ndim", None) == 0:
        value = without_tensor(value)
    is_scalar = isinstance(value, NUMBERS)
    if not is_scalar and not (isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf"):
        return None
    try:
        number = float(value)
    except (ArithmeticError, TypeError, ValueError):  # such as an integer of 400 digits
        return None
    return number if math.isfinite(number) else None


def summarize_infos(
    episodes: Sequence[Mapping[str, InfoSummary]], *, constants: Collection[str] = ()
) -> dict[str, float]:
    """Returns the mean summary of each key over the episodes that have it, but for the keys in ``constants``.

    The result has ``info_<key>_mean`` and ``info_<key>_last`` for each key, and ``info_<key>_sum`` for keys that
    contain ``reward`` or ``cost``, because the parts of a reward add up to the return; but not for running totals.

    Example:
        >>> summarize_infos([{"reward_ctrl": InfoSummary(-0.5, -1.0, -10.0)}])
        {'info_reward_ctrl_mean': -0.5, 'info_reward_ctrl_last': -1.0, 'info_reward_ctrl_sum': -10.0}
    """
    summary: dict[str, float] = {}
    for key in dict.fromkeys(key for infos in episodes for key in infos if key not in constants):
        summaries = [infos[key] for infos in episodes if key in infos]
        name = f"info_{valid_name(key)}"
        summary[f"{name}_mean"] = float(np.mean([numbers.mean for numbers in summaries]))
        summary[f"{name}_last"] = float(np.mean([numbers.last for numbers in summaries]))
        if SUMMED.search(key) and not is_running_total(key, summaries):
            summary[f"{name}_sum"] = float(np.mean([numbers.total for numbers in summaries]))
    return summary


def is_running_total(key: str, summaries: Sequence[InfoSummary]) -> bool:
    """Returns whether the values of a key are totals since the start of an episode.

    Most of the episodes whose values show it decide, else the name of the key.

    Example:
        >>> silent = [InfoSummary(1.0, 1.0, 3.0)]
        >>> is_running_total("total_reward", silent), is_running_total("reward_ctrl", silent)
        (True, False)
    """
    votes = [1 if each.is_running_total else -1 for each in summaries if each.is_running_total is not None]
    if sum(votes) != 0:
        return sum(votes) > 0
    words = {word.lower() for word in WORDS.findall(key)}
    return bool(words & TOTAL_WORDS) and not words & STEP_WORDS
