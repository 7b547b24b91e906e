"""When somebody should be told that training goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from rlwandb_callbacks.config.validation import check_types, require, require_one_of


@dataclass(frozen=True, kw_only=True)
class AlertsConfig:
    """The limits behind which ``wandb.alert`` is called, once for each rule in a training.

    Args:
        enabled: Watch at all.
        max_q_value: Largest size of a q-value, > 0, in the unit of returns; null leaves the rule out.
        min_entropy: Smallest entropy in nats of a policy that had more; null leaves the rule out. With a limit above
            zero negative entropies, which only densities have, pass; for those set a negative limit.
        not_finite: Whether a loss or gradient norm that is NaN or infinite is told, or a q-value that is NaN.
        return_fall: Fall of the mean return from its best, as a share in (0, 1] of the best, or of what had been gained
            until then if that is more; null leaves the rule out.
        return_patience: How many evaluations in a row must have fallen so far, ≥ 1.
        level: ``INFO``, ``WARN`` or ``ERROR``.
    """

    enabled: bool = False
    max_q_value: float | None = 1e6
    min_entropy: float | None = 0.01
    not_finite: bool = True
    return_fall: float | None = 0.5
    return_patience: int = 2
    level: str = "WARN"

    key_prefix = "alerts."

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "max_q_value", lambda value: value is None or value > 0, "a number > 0, or null")
        require(self, "min_entropy", lambda value: value is None or isfinite(value), "a finite number, or null")
        require(self, "return_fall", lambda value: value is None or 0 < value <= 1, "a number in (0, 1], or null")
        require(self, "return_patience", lambda value: value >= 1, "a whole number ≥ 1")
        require_one_of(self, "level", ("INFO", "WARN", "ERROR"))
