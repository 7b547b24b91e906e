"""Alert rules, each a function of the numbers of a row."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from rlwandb_callbacks.callbacks.alerts.return_history import ReturnHistory, read_returns
from rlwandb_callbacks.callbacks.skipped_steps import MAX_SKIPPED_STEPS
from rlwandb_callbacks.config import AlertsConfig

NAME = r"([\w.-]+/)*"  # of an evaluation, and of its task
Q_VALUE_KEY = re.compile(rf"(train/|q(_rl)?/{NAME})(target_)?(q_?\d*(_values?)?|mean|min|max)(_(mean|min|max))?")
LOSS_OR_GRADIENT_KEY = re.compile(r"train/(\w*loss\w*|grad_norm\w*)")
ENTROPY_KEY = re.compile(rf"(train/|policy(_rl)?/{NAME})entropy")
RETURN_KEY = re.compile(rf"(eval(_rl)?/{NAME}|rollout/)return_mean")
ROLLOUT = "rollout/"
SKIPPED_STEPS_KEY, SCALE_KEY = "train/amp_skipped_steps", "train/amp_scale"
ROUNDING = 1e-6


class Alert(NamedTuple):
    """A message to the user."""

    rule: str  # "q_values", "entropy", "not_finite", "skipped_steps" or "returns"
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
    for key, value in numbers.items():
        if ENTROPY_KEY.fullmatch(key) and value < limit and (limit <= 0 or value > -ROUNDING):
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


def skipped_steps(numbers: Mapping[str, float]) -> str | None:
    """Describes optimizer steps that a ``GradScaler`` skipped, from ten in a row, while the losses are finite.

    The first steps in half precision overflow until the scale of the loss has been lowered. A loss that is NaN or
    infinite itself is left to :func:`not_finite`.

    Example:
        >>> skipped_steps({"train/amp_skipped_steps": 9, "train/amp_scale": 128.0})
        >>> skipped_steps({"train/amp_skipped_steps": 10, "train/amp_scale": 64.0}).partition(".")[0]
        'GradScaler skipped 10 optimizer steps in a row, as gradients were NaN or infinite; its scale is now 64'
    """
    count = numbers.get(SKIPPED_STEPS_KEY, 0)
    if count < MAX_SKIPPED_STEPS or not_finite(numbers):
        return None
    scale = f"; its scale is now {numbers[SCALE_KEY]:.6g}" if SCALE_KEY in numbers else ""
    return (
        f"GradScaler skipped {count:.0f} optimizer steps in a row, as gradients were NaN or infinite{scale}. Skipped "
        "steps teach nothing. torch.autograd.set_detect_anomaly(True) names the operation whose gradient is NaN; "
        "precision='bf16-mixed' has the range of float32 and needs no scale"
    )


class AlertRules:
    """Checks row after row, and alerts once for each rule.

    Args:
        limits: Limits of the rules.
        fired: Rules that have alerted.
        returns: Earlier returns, as :meth:`returns_state` returns them.

    Example:
        >>> rules = AlertRules(AlertsConfig())
        >>> [[alert.title for alert in rules.check({"train/loss": float("nan")})] for _ in range(2)]
        [['A loss, gradient or q-value is not finite'], []]
    """

    def __init__(
        self, limits: AlertsConfig, fired: Collection[str] = (), returns: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.fired = set(fired)
        self._limits = limits
        self._once_above: set[str] = set()  # entropies that were at their limit or above
        self._histories = {key: ReturnHistory.restore(state) for key, state in (returns or {}).items()}

    def returns_state(self) -> dict[str, dict[str, Any]]:
        """Returns the returns so far by key, as plain numbers and lists of them."""
        return {key: history.state() for key, history in self._histories.items()}

    def check(self, numbers: Mapping[str, float]) -> list[Alert]:
        """Returns the alerts by rules that have not alerted before on a row, given its scalars by key."""
        alerts = [alert for alert in self._found(numbers) if alert.rule not in self.fired]
        self.fired |= {alert.rule for alert in alerts}
        return alerts

    def _found(self, numbers: Mapping[str, float]) -> Iterator[Alert]:
        limits = self._limits
        if limits.not_finite and (text := not_finite(numbers)):
            yield Alert("not_finite", "A loss, gradient or q-value is not finite", text)
        if limits.not_finite and (text := skipped_steps(numbers)):
            yield Alert("skipped_steps", "Optimizer steps are skipped one after another", text)
        if limits.max_q_value is not None and (text := exploding_q_values(numbers, limit=limits.max_q_value)):
            yield Alert("q_values", "Q-values explode", text)
        if limits.min_entropy is not None and (text := self._collapsed_entropy(numbers, limits.min_entropy)):
            yield Alert("entropy", "The policy's entropy has collapsed", text)
        if text := self._fallen_returns(numbers, limits.return_standard_errors):
            yield Alert("returns", "Returns have fallen from their best", text)

    def _collapsed_entropy(self, numbers: Mapping[str, float], limit: float) -> str | None:
        entropies = {key: value for key, value in numbers.items() if ENTROPY_KEY.fullmatch(key)}
        fallen = {key: value for key, value in entropies.items() if key in self._once_above}
        self._once_above |= {key for key, value in entropies.items() if value >= limit}
        return collapsed_entropy(fallen, limit=limit)

    def _fallen_returns(self, numbers: Mapping[str, float], limit: float | None) -> str | None:
        completed = [key for key in numbers if RETURN_KEY.fullmatch(key) and self._add_returns(key, numbers)]
        if not all(key.startswith(ROLLOUT) for key in self._histories):  # evaluations take precedence
            completed = [key for key in completed if not key.startswith(ROLLOUT)]
        falls = {} if limit is None else {key: self._histories[key].fall(limit=limit) for key in completed}
        key, fall = next(((key, fall) for key, fall in falls.items() if fall is not None), ("", None))
        if fall is None:
            return None
        distance = f"{fall.standard_errors:.3g} standard errors" if fall.standard_errors < math.inf else "without noise"
        return (
            f"{key} is {fall.latest:.6g} over the latest two evaluations, and was {fall.best:.6g} over the best two; "
            f"the fall is {distance}, and the limit is {fall.limit:.3g}"
        )

    def _add_returns(self, key: str, numbers: Mapping[str, float]) -> bool:
        """Adds the mean return of a row, and returns whether it completes an evaluation."""
        prefix = key.removesuffix("return_mean")
        count_key = f"{prefix}{'episodes' if prefix == ROLLOUT else 'episodes_count'}"
        mean, std, count = (numbers.get(name, math.nan) for name in (key, f"{prefix}return_std", count_key))
        returns = read_returns(mean, std, count)
        return returns is not None and self._histories.setdefault(key, ReturnHistory()).add(returns)
