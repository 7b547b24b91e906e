"""Alert rules, each a function of the numbers of a row."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rlwandb_callbacks.config import AlertsConfig

Q_VALUE_KEY = re.compile(r"(train|q)/(target_)?(q_?\d*(_values?)?|mean|min|max)(_(mean|min|max))?")
LOSS_OR_GRADIENT_KEY = re.compile(r"train/(\w*loss\w*|grad_norm\w*)")
ENTROPY_KEYS = ("train/entropy", "policy/entropy")
RETURN_KEYS = ("eval/return_mean", "rollout/return_mean")
ROUNDING = 1e-6


class Alert(NamedTuple):
    """A message to the user."""

    rule: str  # "q_values", "entropy", "not_finite" or "returns"
    title: str  # one line of less than 64 characters
    text: str  # the value that was found, and its limit


def exploding_q_values(numbers: Mapping[str, float], *, limit: float) -> str | None:
    """Describes the first q-value beyond ±``limit``; NaN is left to :func:`not_finite`.

    Q-values are ``train/q_value``, ``train/target_q_value`` and ``train/q1``, …, also with ``_min`` and ``_max``, and
    ``q/mean``.

    Example:
        >>> exploding_q_values({"train/q_value_max": 2e6, "train/td_error": 9e9}, limit=1e6)
        'train/q_value_max is 2e+06; the limit is ±1e+06'
    """
    for key, value in numbers.items():
        if Q_VALUE_KEY.fullmatch(key) and abs(value) > limit:
            return f"{key} is {value:.6g}; the limit is ±{limit:.6g}"
    return None


def collapsed_entropy(numbers: Mapping[str, float], *, limit: float) -> str | None:
    """Describes the first of ``train/entropy`` and ``policy/entropy`` that is below ``limit``, in nats.

    The entropy of discrete actions is never negative. That of a density may be, and normally falls while a continuous
    policy learns; therefore a limit above zero ignores negative entropies, and a limit for them is negative itself.

    Example:
        >>> collapsed_entropy({"policy/entropy": 0.002}, limit=0.01)
        'policy/entropy is 0.002 nats; the limit is 0.01'
        >>> collapsed_entropy({"train/entropy": -4.0}, limit=0.01)
    """
    for key in ENTROPY_KEYS:
        value = numbers.get(key, math.nan)
        if value < limit and (limit <= 0 or value > -ROUNDING):
            return f"{key} is {value:.6g} nats; the limit is {limit:.6g}"
    return None


def not_finite(numbers: Mapping[str, float]) -> str | None:
    """Describes the first loss or gradient norm that is NaN or infinite, or q-value that is NaN.

    Keys are ``train/…loss…``, ``train/grad_norm…`` and those of :func:`exploding_q_values`, which finds infinite ones.

    Example:
        >>> not_finite({"train/loss": 0.1, "train/grad_norm": float("inf")})
        'train/grad_norm is inf'
    """
    for key, value in numbers.items():
        is_nan_q_value = math.isnan(value) and Q_VALUE_KEY.fullmatch(key)
        if is_nan_q_value or (LOSS_OR_GRADIENT_KEY.fullmatch(key) and not math.isfinite(value)):
            return f"{key} is {value}"
    return None


@dataclass
class ReturnHistory:
    """Summary of all mean returns so far."""

    best: float
    lowest_before_best: float  # lowest return until the best one
    lowest: float
    consecutive_low: int = 0  # latest returns in a row that were low, see is_low

    def add(self, value: float, *, fraction: float) -> None:
        """Adds a mean return; ``fraction`` is that of :func:`is_low`."""
        low = is_low(value, best=self.best, lowest=self.lowest_before_best, fraction=fraction)
        self.consecutive_low = self.consecutive_low + 1 if low else 0
        self.lowest = min(self.lowest, value)
        if value > self.best:
            self.best, self.lowest_before_best = value, self.lowest


def is_low(value: float, *, best: float, lowest: float, fraction: float) -> bool:
    """Returns whether a return has fallen by a fraction of the best one, or of the gain until then if that is larger.

    Returns may thus be negative, and noise at the start, when little has been gained, is not a fall. ``lowest`` is the
    lowest return before the best one; ``fraction`` is in (0, 1].

    Example:
        >>> is_low(200.0, best=500.0, lowest=20.0, fraction=0.5), is_low(260.0, best=500.0, lowest=20.0, fraction=0.5)
        (True, False)
        >>> is_low(-1000.0, best=-150.0, lowest=-1400.0, fraction=0.5)
        True
        >>> is_low(-20.9, best=-20.0, lowest=-21.0, fraction=0.5)
        False
    """
    fall = best - value
    return fall > 0 and fall >= fraction * max(abs(best), best - lowest)


class AlertRules:
    """Checks row after row, and alerts once for each rule; ``fired`` are the rules that have alerted.

    Example:
        >>> rules = AlertRules(AlertsConfig())
        >>> [[alert.title for alert in rules.check({"train/loss": float("nan")})] for _ in range(2)]
        [['A loss, gradient or q-value is not finite'], []]
    """

    def __init__(self, limits: AlertsConfig, fired: Collection[str] = ()) -> None:
        self.fired = set(fired)
        self._limits = limits
        self._once_above: set[str] = set()  # entropies that were at their limit or above
        self._histories: dict[str, ReturnHistory] = {}

    def check(self, numbers: Mapping[str, float]) -> list[Alert]:
        """Returns the alerts by rules that have not alerted before on a row, given its scalars by key."""
        alerts = [alert for alert in self._found(numbers) if alert.rule not in self.fired]
        self.fired |= {alert.rule for alert in alerts}
        return alerts

    def _found(self, numbers: Mapping[str, float]) -> Iterator[Alert]:
        limits = self._limits
        if limits.not_finite and (text := not_finite(numbers)):
            yield Alert("not_finite", "A loss, gradient or q-value is not finite", text)
        if limits.max_q_value is not None and (text := exploding_q_values(numbers, limit=limits.max_q_value)):
            yield Alert("q_values", "Q-values explode", text)
        if limits.min_entropy is not None and (text := self._collapsed_entropy(numbers, limits.min_entropy)):
            yield Alert("entropy", "The policy's entropy has collapsed", text)
        if limits.return_fall is not None and (text := self._fallen_returns(numbers, limits.return_fall)):
            yield Alert("returns", "Returns have fallen from their best", text)

    def _collapsed_entropy(self, numbers: Mapping[str, float], limit: float) -> str | None:
        entropies = {key: numbers[key] for key in ENTROPY_KEYS if key in numbers}
        fallen = {key: value for key, value in entropies.items() if key in self._once_above}
        self._once_above |= {key for key, value in entropies.items() if value >= limit}
        return collapsed_entropy(fallen, limit=limit)

    def _fallen_returns(self, numbers: Mapping[str, float], fraction: float) -> str | None:
        for key in RETURN_KEYS:
            value = numbers.get(key, math.nan)
            if not math.isnan(value):
                self._histories.setdefault(key, ReturnHistory(value, value, value)).add(value, fraction=fraction)
        key = next((key for key in RETURN_KEYS if key in self._histories), "")  # evaluations take precedence
        patience = self._limits.return_patience
        if key not in numbers or self._histories[key].consecutive_low < patience:
            return None
        found = f"{key} is {numbers[key]:.6g}, and was {self._histories[key].best:.6g} at its best"
        return f"{found}; the limit is a fall by {fraction:.0%}, {patience} times in a row"
