"""When training deserves to be looked at: each rule a small function of the numbers that were just written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Q_VALUE_KEY = re.compile(r"(train|q)/(target_)?(q_?\d*(_values?)?|mean|min|max)(_(mean|min|max))?")
LOSS_OR_GRADIENT_KEY = re.compile(r"train/(\w*loss\w*|grad_norm\w*)")
ENTROPY_KEYS = ("train/entropy", "policy/entropy")
RETURN_KEYS = ("eval/return_mean", "rollout/return_mean")
ROUNDING = 1e-6


@dataclass(frozen=True)
class Alert:
    """What somebody should be told.

    Args:
        rule: ``q_values``, ``entropy``, ``not_finite`` or ``returns``.
        title: One line of less than 64 characters.
        text: What was seen, and against which limit.
    """

    rule: str
    title: str
    text: str


def exploding_q_values(numbers: Mapping[str, float], *, limit: float) -> str | None:
    """Says which q-value is beyond ±``limit``; what is no number is left to :func:`not_finite`.

    Args:
        numbers: By key; q-values are ``train/q_value``, ``train/target_q_value`` and ``train/q1``, …, also with
            ``_min`` and ``_max``, and ``q/mean``.
        limit: Greater than 0, in the unit of returns.

    Example:
        >>> exploding_q_values({"train/q_value_max": 2e6, "train/td_error": 9e9}, limit=1e6)
        'train/q_value_max is 2e+06; the limit is ±1e+06'
    """
    for key, value in numbers.items():
        if Q_VALUE_KEY.fullmatch(key) and abs(value) > limit:
            return f"{key} is {value:.6g}; the limit is ±{limit:.6g}"
    return None


def collapsed_entropy(numbers: Mapping[str, float], *, limit: float) -> str | None:
    """Says which entropy is below ``limit``.

    The entropy of discrete actions is never negative. That of a density may be, and falls by itself as a continuous
    policy learns, so that with a limit above zero negative entropies pass; a limit for them is itself negative.

    Args:
        numbers: By key; entropies are ``train/entropy`` and ``policy/entropy``, in nats.
        limit: In nats.

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
    """Says which loss or gradient norm is NaN or infinite, or which q-value is NaN.

    Args:
        numbers: By key; looked at are ``train/…loss…`` and ``train/grad_norm…``, and the q-values of
            :func:`exploding_q_values`, whose infinite values explode.

    Example:
        >>> not_finite({"train/loss": 0.1, "train/grad_norm": float("inf")})
        'train/grad_norm is inf'
    """
    for key, value in numbers.items():
        is_nan_q_value = math.isnan(value) and Q_VALUE_KEY.fullmatch(key)
        if is_nan_q_value or (LOSS_OR_GRADIENT_KEY.fullmatch(key) and not math.isfinite(value)):
            return f"{key} is {value}"
    return None


@dataclass(frozen=True)
class ReturnCourse:
    """How returns have gone so far, in the unit of returns.

    Args:
        best: Highest.
        lowest_before_best: Lowest until then.
        lowest: Lowest of all.
        latest: The latest.
        low_in_a_row: How many of the latest were low, one behind the other; see :func:`is_low`.
    """

    best: float
    lowest_before_best: float
    lowest: float
    latest: float
    low_in_a_row: int = 0

    @classmethod
    def starting_at(cls, value: float) -> ReturnCourse:
        """A course of one evaluation."""
        return cls(value, value, value, value)

    def after(self, value: float, *, share: float) -> ReturnCourse:
        """The course with one more mean return; ``share`` is that of :func:`is_low`."""
        low = is_low(value, best=self.best, lowest=self.lowest_before_best, share=share)
        lowest = min(self.lowest, value)
        best, before = (value, lowest) if value > self.best else (self.best, self.lowest_before_best)
        return ReturnCourse(best, before, lowest, value, self.low_in_a_row + 1 if low else 0)


def is_low(value: float, *, best: float, lowest: float, share: float) -> bool:
    """Tells whether a return lies a share below the best.

    The share is of the best's own size, or of what had been gained since the lowest return before it, whichever is
    more: so returns may be negative, and noise at the start, when little has been gained, is none.

    Args:
        value: The return now.
        best: The highest so far.
        lowest: The lowest before that, ≤ ``best``.
        share: In (0, 1].

    Example:
        >>> is_low(200.0, best=500.0, lowest=20.0, share=0.5), is_low(260.0, best=500.0, lowest=20.0, share=0.5)
        (True, False)
        >>> is_low(-1000.0, best=-150.0, lowest=-1400.0, share=0.5), is_low(-20.9, best=-20.0, lowest=-21.0, share=0.5)
        (True, False)
    """
    fall = best - value
    return fall > 0 and fall >= share * max(abs(best), best - lowest)


class AlertRules:
    """Judges row after row, and speaks once of each rule.

    Args:
        max_q_value: Of :func:`exploding_q_values`; None leaves the rule out.
        min_entropy: Of :func:`collapsed_entropy`, which has collapsed only if it had been at the limit or above; None
            leaves the rule out.
        finite: Whether :func:`not_finite` is asked.
        return_fall: Of :func:`is_low`, in (0, 1]; None leaves the rule out.
        return_patience: How many low evaluations in a row it takes, ≥ 1.
        fired: How often each rule has fired before.

    Example:
        >>> rules = AlertRules()
        >>> [[alert.title for alert in rules.judge({"train/loss": float("nan")})] for _ in range(2)]
        [['A loss, gradient or q-value is not finite'], []]
    """

    def __init__(
        self,
        *,
        max_q_value: float | None = 1e6,
        min_entropy: float | None = 0.01,
        finite: bool = True,
        return_fall: float | None = 0.5,
        return_patience: int = 2,
        fired: Mapping[str, int] | None = None,
    ) -> None:
        self.fired = dict(fired or {})
        self._max_q_value = max_q_value
        self._min_entropy = min_entropy
        self._finite = finite
        self._return_fall = return_fall
        self._return_patience = return_patience
        self._entropies_once_above: set[str] = set()
        self._courses: dict[str, ReturnCourse] = {}

    def judge(self, numbers: Mapping[str, float]) -> list[Alert]:
        """Says what is wrong in a row and has not been said before.

        Args:
            numbers: The scalars of one row by key.
        """
        alerts = [alert for alert in self._found(numbers) if alert.rule not in self.fired]
        self.fired |= {alert.rule: 1 for alert in alerts}
        return alerts

    def _found(self, numbers: Mapping[str, float]) -> Iterator[Alert]:
        if self._finite and (text := not_finite(numbers)):
            yield Alert("not_finite", "A loss, gradient or q-value is not finite", text)
        if self._max_q_value is not None and (text := exploding_q_values(numbers, limit=self._max_q_value)):
            yield Alert("q_values", "Q-values explode", text)
        if text := self._entropy(numbers):
            yield Alert("entropy", "The policy's entropy has collapsed", text)
        if text := self._returns(numbers):
            yield Alert("returns", "Returns have fallen from their best", text)

    def _entropy(self, numbers: Mapping[str, float]) -> str | None:
        if self._min_entropy is None:
            return None
        known = {key: numbers[key] for key in ENTROPY_KEYS if key in numbers}
        fallen = {key: value for key, value in known.items() if key in self._entropies_once_above}
        self._entropies_once_above |= {key for key, value in known.items() if value >= self._min_entropy}
        return collapsed_entropy(fallen, limit=self._min_entropy)

    def _returns(self, numbers: Mapping[str, float]) -> str | None:
        if self._return_fall is None:
            return None
        for key in RETURN_KEYS:
            if key in numbers and not math.isnan(numbers[key]):
                value, course = numbers[key], self._courses.get(key)
                following = course.after(value, share=self._return_fall) if course else ReturnCourse.starting_at(value)
                self._courses[key] = following
        judged = next((key for key in RETURN_KEYS if key in self._courses), "")
        course = self._courses.get(judged)
        if course is None or judged not in numbers or course.low_in_a_row < self._return_patience:
            return None
        return (
            f"{judged} is {course.latest:.6g}, and was {course.best:.6g} at its best; the limit is a fall by "
            f"{self._return_fall:.0%}, {self._return_patience} times in a row"
        )
