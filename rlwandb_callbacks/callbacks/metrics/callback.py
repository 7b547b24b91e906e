"""Logs training metrics: losses, learning rates, entropy, q-values, gradient norms."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from rlwandb_callbacks.callbacks.backward_gradients import gradients_may_change
from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.counters import log_every_n_steps, skips_backward
from rlwandb_callbacks.callbacks.lightning_results import epoch_keys_of_loggers, logged_on_step
from rlwandb_callbacks.callbacks.lockstep import Moment
from rlwandb_callbacks.callbacks.metric_names import MetricSelection
from rlwandb_callbacks.callbacks.metrics.gradient_norms import GradientNorms
from rlwandb_callbacks.callbacks.metrics.learning_rates import LearningRates
from rlwandb_callbacks.callbacks.metrics.logged_values import LoggedValues
from rlwandb_callbacks.callbacks.metrics.missing import describe_missing_metrics, describe_missing_updates
from rlwandb_callbacks.callbacks.metrics.numbers import detached, reduce_over_ranks, to_numbers
from rlwandb_callbacks.callbacks.metrics.skipped_rows import SkippedRows, without_norms
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.core.values import Scalar

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


OF_EPOCH = "_epoch"


class MetricsCallback(RLCallback):
    """Logs ``train/…`` every ``metrics.every_n_steps`` updates, and metrics of epochs once an epoch.

    Values come from the mapping that ``training_step`` returns, else from the metrics that the module logged. Learning
    rates are those of the latest step of each optimizer, and ``grad_norm`` is read there if the module provides none.
    A row holds the latest value of each metric that was returned or logged since the previous row. Values stay on
    their device, and nothing waits for it, until a row is due.

    What the module logs with ``on_epoch=True`` is a row of its own, at the last step of its epoch. Its name there ends
    in ``_epoch`` if the same metric has values of batches too.

    Args:
        cfg: A config, or a mapping with its keys.
        is_written: Write the rows; otherwise only alerts read them.
        keywords: As for every callback.

    Example:
        >>> MetricsCallback({"metric_list": ["loss", "q_values"]}).cfg.metric_list
        ['loss', 'q_values']
    """

    def __init__(self, cfg: Any = None, *, is_written: bool = True, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._is_written = is_written
        self._selection = MetricSelection(self.cfg.metric_list)
        self._clear()

    def _clear(self) -> None:
        self._every = Every(1)
        self._skipped_rows = SkippedRows(self.session.loss_scale, 1)
        self._latest: dict[str, Any] = {}  # returned values by metric
        self._latest_logged: dict[str, Any] = {}  # logged values by metric, of an epoch that has ended
        self._loss_divisor = 1  # of the latest loss
        self._batch_divisor = 0  # of the loss of this batch; 0 before its backward pass
        self._logged = LoggedValues()
        self._has_ended_epoch = False  # one that is not logged yet
        self._epoch_axes: dict[str, float] | None = None  # of its last batch
        self._plans: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}  # (name, metric) by the names of a batch
        self._gradient_norms = GradientNorms(self.session)
        self._learning_rates = LearningRates()
        self._updates_at_row = 0
        self._is_active = False
        self._found: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out live tensors."""
        live = {"_latest": {}, "_latest_logged": {}, "_logged": LoggedValues()}
        return {**super().__getstate__(), **live, "_gradient_norms": GradientNorms(self.session)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule."""
        super().on_train_start(trainer, pl_module)
        self._clear()
        interval = self.cfg.metrics.every_n_steps or log_every_n_steps(trainer)
        self._updates_at_row = self.session.counters.updates
        self._every = Every(interval, last=self._updates_at_row)
        self._skipped_rows = SkippedRows(self.session.loss_scale, interval)
        self._is_active = self.session.exchange.is_on or self.session.tracker is not None
        self._gradient_norms.follows_backward = gradients_may_change(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Follows the backward passes of a batch whose norm is due if the gradients may change before the update."""
        self.session.begin_batch(trainer, pl_module)
        if skips_backward(trainer):
            with self.session.errors.guard("Logging metrics"):
                self._write_row(trainer, pl_module, Moment.EPOCH_END)  # the last one of training
        elif self._needs_norm():
            self._gradient_norms.start_batch(trainer.optimizers)

    def _needs_norm(self) -> bool:
        is_due = self._every.would_fire(self.session.counters.updates + 1)
        return is_due and self._is_active and self._selection.wants("grad_norm")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Reads by what Lightning has just divided the loss; callbacks change it at any time."""
        self._batch_divisor = trainer.accumulate_grad_batches

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Computes the norm of the accumulated gradients before they are clipped, if a row is due."""
        self.session.loss_scale.follow()
        self.session.counters.steps.before_step(optimizer)
        if self._needs_norm():
            self._gradient_norms.before_step(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the latest values, and writes a row if one is due."""
        counters = self.session.counters
        self.session.advance(trainer, pl_module, outputs)
        if not self._is_active:
            return
        if not counters.is_training:
            self._logged.of_batches(trainer)  # so that no later row has them
            return
        if outputs:
            self._keep(trainer, pl_module, outputs)
        self._gradient_norms.drop_skipped(trainer.optimizers)
        self._skipped_rows.add_batch()
        if not self._every.due(counters.updates):
            if self.session.loss_scale.skipped_steps.has_new:
                with self.session.errors.guard("Logging metrics"):
                    self._write_skipped(trainer, pl_module)
            return
        self._gradient_norms.end_batch(trainer.optimizers)
        with self.session.errors.guard("Logging metrics"):
            self._write_row(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the values since the last row, of this rank only, as other ranks may have ended."""
        self.session.exchange.stop()
        self._write_row(trainer, pl_module)
        self._write_epoch_row(trainer, pl_module)
        self._latest, self._latest_logged, self._logged = {}, {}, LoggedValues()
        self._gradient_norms.clear()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what Lightning drops after this hook: values of the latest batches, and the step of the epoch.

        The metrics of the epoch are not ready yet. To ask for them here would compute them on this rank only.
        """
        if not self._is_active or not self.session.counters.is_training:
            return
        self._has_ended_epoch = True  # on all ranks, even if what follows fails on this one
        with self.session.errors.guard("Logging metrics of an epoch"):
            self._logged.epoch_ends(trainer)
            self._latest_logged |= self._pick_logged(trainer, pl_module)
            self._epoch_axes = self.session.counters.axes(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the metrics of the previous epoch."""
        with self.session.errors.guard("Logging metrics of an epoch"):
            self._write_epoch_row(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last rows, and warns of names in ``metric_list`` that never had a value."""
        with self.session.errors.guard("Logging metrics"):
            self._write_row(trainer, pl_module, Moment.FIT_END)
        with self.session.errors.guard("Logging metrics of an epoch"):
            self._write_epoch_row(trainer, pl_module, Moment.FIT_END)
        if self.session.tracker is not None:
            self._warn_of_missing(pl_module)

    def _warn_of_missing(self, pl_module: LightningModule) -> None:
        counters, errors = self.session.counters, self.session.errors
        if counters.updates == 0 and counters.batches > 0:
            message = describe_missing_updates(
                counters.batches,
                skipped_in_row=self.session.loss_scale.skipped_steps.in_row,
                automatic_optimization=pl_module.automatic_optimization,
            )
            if message is not None:
                errors.warn_once(message, kind="no updates")
            return
        missing = self._selection.missing(self._found)
        if missing:
            errors.warn_once(describe_missing_metrics(missing), kind="missing metrics")

    def _keep(self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Any]) -> None:
        self._loss_divisor, self._batch_divisor = self._batch_divisor or trainer.accumulate_grad_batches, 0
        latest = self._latest
        for name, metric in self._plan(outputs, pl_module):
            latest[metric] = detached(outputs[name])

    def _plan(self, values: Iterable[str], pl_module: LightningModule) -> tuple[tuple[str, str], ...]:
        """Returns (name, metric) of those values of a batch that are logged, by the names of all."""
        names = tuple(values)
        plan = self._plans.get(names)
        if plan is None:
            picked = self._selection.pick(names)
            plan = self._plans[names] = tuple(picked.items())
            self.session.notice_metrics(pl_module, picked)
        return plan

    def _write_row(self, trainer: Trainer, pl_module: LightningModule, moment: Moment = Moment.BATCH_END) -> None:
        updates = self.session.counters.updates
        if not self._is_active or (updates <= self._updates_at_row and not self._skipped_rows.is_pending):
            return
        self._updates_at_row = updates
        self._skipped_rows.start_row()
        numbers = self._reduced(trainer, lambda: self._numbers(trainer, pl_module), moment, "the metrics")
        logged = logged_on_step(trainer) if self.session.has_wandb_logger else {}
        self._write(trainer, pl_module, numbers, logged, self._epoch_axes)

    def _write_skipped(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes a row after a skipped step if many were skipped in a row, or if a loss is NaN or infinite.

        The losses are those of this rank, as others may be finite. Norms that the module logged overflowed too.
        """
        self._latest_logged |= self._pick_logged(trainer, pl_module)
        self._latest, self._latest_logged = without_norms(self._latest), without_norms(self._latest_logged)
        if self._skipped_rows.is_due():
            self._write_row(trainer, pl_module)
            return
        losses = self._skipped_rows.losses_to_report(self._latest_logged | self._latest)
        if losses:
            logged = logged_on_step(trainer) if self.session.has_wandb_logger else {}
            self._write(trainer, pl_module, losses | self._amp_numbers(), logged, None)

    def _amp_numbers(self) -> dict[str, float]:
        return self._skipped_rows.numbers(with_scale=self._selection.wants("amp_scale"))

    def _write_epoch_row(self, trainer: Trainer, pl_module: LightningModule, moment: Moment = Moment.EPOCH_END) -> None:
        has_ended, self._has_ended_epoch = self._has_ended_epoch, False
        axes, self._epoch_axes = self._epoch_axes, None
        if not has_ended:
            return
        what = "the metrics of an epoch"
        numbers = self._reduced(trainer, lambda: self._epoch_numbers(trainer, pl_module), moment, what)
        if numbers:
            logged = epoch_keys_of_loggers(trainer) if self.session.has_wandb_logger else set()
            self._write(trainer, pl_module, numbers, logged, axes)

    def _reduced(
        self, trainer: Trainer, read: Callable[[], dict[str, float]], moment: Moment, what: str
    ) -> dict[str, float]:
        numbers: dict[str, float] = {}
        try:
            numbers = read()
        finally:  # the other ranks wait for this one even if it failed
            if self.session.exchange.is_on:
                numbers = reduce_over_ranks(self.session.exchange.gather(trainer, numbers, moment, what))
        self._found |= {metric.removesuffix(OF_EPOCH) for metric in numbers}
        return numbers

    def _write(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        numbers: Mapping[str, float],
        logged: Container[str],
        axes: Mapping[str, float] | None,
    ) -> None:
        """Writes numbers, but for those that Lightning passes to its loggers under the same key.

        ``axes`` are those of the latest batch if its epoch has ended, as the module may have gone on since.
        """
        if self.session.tracker is None:
            return
        values = {f"train/{metric}": Scalar(number) for metric, number in numbers.items()}
        written = {key: value for key, value in values.items() if self.session.key_in_run(key) not in logged}
        if self._is_written and written:
            self.session.write(trainer, pl_module, written, logged_elsewhere=values, axes=axes)
        else:
            self.session.notify(trainer, pl_module, values, axes=axes)

    def _numbers(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        latest, self._latest, norm = self._latest, {}, self._gradient_norms.take()
        logged, self._latest_logged = self._latest_logged | self._pick_logged(trainer, pl_module), {}
        values = {} if norm is None else {"grad_norm": norm}
        numbers = self._amp_numbers() | to_numbers({**values, **logged, **latest})
        if "loss" in latest and "loss" in numbers and pl_module.automatic_optimization:
            numbers["loss"] *= self._loss_divisor  # Lightning has divided this loss, and nothing else
        if self._selection.wants("lr"):
            numbers |= self._learning_rates.read(trainer.optimizers, pl_module, self.session.counters.steps)
        return numbers

    def _pick_logged(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Returns the values, by metric, that were logged for batches since the previous reading."""
        logged = self._logged.of_batches(trainer)
        return {metric: logged[name] for name, metric in self._plan(logged, pl_module)}

    def _epoch_numbers(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        logged = self._logged.of_epoch(trainer)
        picked = self._selection.pick(logged)
        self.session.notice_metrics(pl_module, picked)
        of_batches = {metric for plan in self._plans.values() for _, metric in plan}
        return to_numbers({metric + OF_EPOCH * (metric in of_batches): logged[name] for name, metric in picked.items()})
