"""Values of training from all ranks (``metrics.reduce_over_ranks``)."""

from __future__ import annotations

from typing import Any, TypeVar

from rlwandb_callbacks.callbacks.counters import log_every_n_steps
from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.lockstep import Lockstep, Moment
from rlwandb_callbacks.callbacks.meetings import MissingRanksError
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.config import MetricsConfig

T = TypeVar("T")
LOGS_ALONE = "logs numbers of its own training, without those of other ranks"


class RankExchange:
    """Gathers values of all ranks where all of them are sure to come, so that no rank waits for one that does not.

    Args:
        cfg: Whether to gather, and the updates between two rows.
        lockstep: Knows where all ranks come.
        errors: Gets errors and warnings.

    Attributes:
        is_on: Whether values of other ranks are logged in this training.
    """

    def __init__(self, cfg: MetricsConfig, lockstep: Lockstep, errors: ErrorPolicy) -> None:
        self._cfg, self._lockstep, self._errors = cfg, lockstep, errors
        self._every = Every(1)
        self.is_on = self._has_started = False

    def start(self, trainer: Any, updates: int) -> None:
        """Starts a training, once for all callbacks of a session; all ranks must call it."""
        if self._has_started:
            return
        self._has_started = True
        self.is_on = self._cfg.reduce_over_ranks and trainer.world_size > 1
        self.is_on &= not getattr(trainer, "fast_dev_run", False)
        if self.is_on:
            self._every = Every(self._cfg.every_n_steps or log_every_n_steps(trainer), last=updates)
            self._lockstep.agree(trainer)

    def stop(self) -> None:
        """Gathers nothing any more, as a training has ended."""
        self.is_on = False

    def is_due(self, updates: int) -> bool:
        """Returns whether a row is due after a batch."""
        return self.is_on and self._every.due(updates)

    def gather(self, trainer: Any, value: T, moment: Moment, what: str) -> list[T]:
        """Returns the values of all ranks; only that of this one if it is off, or if other ranks may not come here.

        Args:
            trainer: The Trainer.
            value: Picklable value of this rank.
            moment: The hook.
            what: What is gathered ("the metrics"), which must be the same on all ranks.
        """
        if not self.is_on:
            return [value]
        if not self._lockstep.is_sure(trainer, moment):
            if trainer.is_global_zero:
                self._errors.warn_once(self._lockstep.describe(moment, LOGS_ALONE), kind="ranks of metrics")
            return [value]
        try:
            return Ranks(trainer, f"with {what} at {moment.value}").gather(value)
        except MissingRanksError as error:
            if not error.is_interrupted:
                self._lockstep.give_up()
                self._errors.report_error("Gathering metrics of all ranks", error)
            return [value]
