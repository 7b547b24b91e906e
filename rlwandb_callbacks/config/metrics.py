"""How training metrics are logged."""

from __future__ import annotations

from dataclasses import dataclass

from rlwandb_callbacks.config.validation import check_types, require


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """How training metrics are logged.

    Args:
        every_n_steps: Updates (batches after which an optimizer stepped) between two rows, ≥ 1; by default the
            Trainer's ``log_every_n_steps``.
        reduce_over_ranks: Under DDP, log the mean over all processes (the least of ``_min`` and the greatest of
            ``_max``), which makes them wait for each other when a row is due; else rank zero logs its own numbers.
    """

    every_n_steps: int | None = None
    reduce_over_ranks: bool = False

    key_prefix = "metrics."

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "every_n_steps", lambda value: value is None or value >= 1, "a whole number ≥ 1")
