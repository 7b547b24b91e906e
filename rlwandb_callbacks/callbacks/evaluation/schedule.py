"""Decides when a training is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlwandb_callbacks.callbacks.evaluation.monitors import Monitor, Need
from rlwandb_callbacks.callbacks.lightning_results import computed_metrics
from rlwandb_callbacks.callbacks.schedule import Every


class EvaluationSchedule:
    """Evaluations of one training, apart from those at the end of each validation.

    A module without a validation loop is evaluated every ``every_n_steps`` updates, and when its last epoch ends,
    before checkpoints are saved. What monitors one of our numbers finds one when it first reads it. EarlyStopping and
    ReduceLROnPlateau find a new one at each read; a number that a checkpoint reads for the first time is of the weights
    that it saves.

    Args:
        every_n_steps: Updates between two evaluations of a module without a validation loop.
        updates: Updates of the training at its start.
        monitors: Readers of our numbers.
    """

    def __init__(self, every_n_steps: int, *, updates: int = 0, monitors: Sequence[Monitor] = ()) -> None:
        self._every = Every(every_n_steps, last=updates)
        self._monitors = monitors
        self._evaluated_at: int | None = None
        self._read_at = -1  # updates when a checkpoint last read a number

    @property
    def has_monitors(self) -> bool:
        """Whether callbacks or schedulers read our numbers."""
        return bool(self._monitors)

    def release(self, is_released: Callable[[str], bool]) -> None:
        """Leaves out the readers of numbers that are no longer ours."""
        self._monitors = [monitor for monitor in self._monitors if not is_released(monitor.key)]

    def mark(self, updates: int) -> None:
        """Notes an evaluation."""
        self._evaluated_at = updates

    def due_after_batch(self, trainer: Any, updates: int, batch_idx: int) -> bool:
        """Returns whether to evaluate at the end of a batch."""
        is_due = self._every.due(updates)
        if not is_due and not self._monitors:
            return False
        readers = [monitor for monitor in self._monitors if monitor.reads_after_batch(trainer, batch_idx)]
        if not is_due and not readers:
            return False
        if trainer.enable_validation:  # a slow property, so it is not read in every batch
            readers = [monitor for monitor in readers if monitor.need is not Need.CURRENT]  # checkpoints wait for it
            return self._lack_number(readers, trainer, updates)
        lack_number = self._lack_number(readers, trainer, updates)
        is_last_read = bool(readers) and self._evaluated_at != updates and is_last_batch(trainer)
        return is_due or lack_number or is_last_read

    def due_after_epoch(self, trainer: Any, updates: int) -> bool:
        """Returns whether to evaluate at the end of a training epoch, before monitors read and checkpoints save."""
        readers = [monitor for monitor in self._monitors if monitor.reads_after_epoch(trainer)]
        lack_number = self._lack_number(readers, trainer, updates)
        return lack_number or (is_last_epoch(trainer) and self._lacks_last(trainer, updates))

    def due_after_training(self, trainer: Any, updates: int) -> bool:
        """Returns whether to evaluate after training, as no epoch's end has seen the last update."""
        return self._lacks_last(trainer, updates)

    def _lacks_last(self, trainer: Any, updates: int) -> bool:
        """Returns whether a training that ends now lacks its last evaluation, or the only one beside validation."""
        return self._evaluated_at is None if trainer.enable_validation else self._evaluated_at != updates

    def _lack_number(self, readers: Sequence[Monitor], trainer: Any, updates: int) -> bool:
        """Returns whether one of the monitors that read now would not find the number that it needs."""
        if not readers:
            return False
        needs = {monitor.need for monitor in readers}
        is_unread = self._evaluated_at is not None and self._evaluated_at > self._read_at
        if needs != {Need.ANY}:
            self._read_at = updates
        if self._evaluated_at == updates:
            return False
        if any(monitor.key not in computed_metrics(trainer) for monitor in readers):
            return True
        return not trainer.enable_validation and (Need.NEW in needs or (Need.CURRENT in needs and is_unread))


def is_last_batch(trainer: Any) -> bool:
    """Returns whether no batch follows, at the end of a training batch."""
    loop = trainer.fit_loop
    epochs = loop.epoch_progress.current.processed + loop.epoch_loop.batch_progress.is_last_batch
    return ends_with_epoch(trainer, epochs)


def is_last_epoch(trainer: Any) -> bool:
    """Returns whether no epoch follows, at the end of a training epoch."""
    return ends_with_epoch(trainer, trainer.fit_loop.epoch_progress.current.processed)


def ends_with_epoch(trainer: Any, epochs: int) -> bool:
    """Returns whether a training ends after a number of epochs, or because of what has happened so far.

    ``trainer.fit_loop.done`` says so too, but it also reports the end of training and changes the count of epochs.
    """
    reached_steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    reached_epochs = trainer.max_epochs not in (None, -1) and epochs >= trainer.max_epochs
    may_stop = getattr(trainer.fit_loop, "_can_stop_early", True)
    return reached_steps or reached_epochs or (trainer.should_stop and may_stop)
