"""Logs training metrics: losses, learning rates, entropy, q-values, gradient norms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from rlwandb_callbacks.callbacks.backward_gradients import gradients_may_change
from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.counters import log_every_n_steps
from rlwandb_callbacks.callbacks.lightning_results import epoch_keys_of_loggers, logged_on_step
from rlwandb_callbacks.callbacks.metric_names import MetricSelection
from rlwandb_callbacks.callbacks.metrics.learning_rates import LearningRates
from rlwandb_callbacks.callbacks.metrics.logged_values import LoggedValues
from rlwandb_callbacks.callbacks.metrics.numbers import detached, reduce_over_ranks, to_numbers
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.callbacks.trained_parameters import l2_norms, parameters_of
from rlwandb_callbacks.core.values import Scalar

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


OF_EPOCH = "_epoch"


class MetricsCallback(RLCallback):
    """Logs ``train/…`` every ``metrics.every_n_steps`` updates, and metrics of epochs once an epoch.

    Values come from the mapping that ``training_step`` returns, else from the metrics that the module logged. Learning
    rates come from the optimizers, and so does ``grad_norm`` if the module provides none. A row holds the latest value
    of each metric that was returned or logged since the previous row. Values stay on their device, and nothing waits
    for it, until a row is due.

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
        self._latest: dict[str, Any] = {}  # returned values by metric
        self._latest_logged: dict[str, Any] = {}  # logged values by metric, of an epoch that has ended
        self._loss_divisor = 1
        self._logged = LoggedValues()
        self._has_ended_epoch = False  # one that is not logged yet
        self._epoch_axes: dict[str, float] | None = None  # of its last batch
        self._plans: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}  # (name, metric) by the names of a batch
        self._norms: dict[int, torch.Tensor] = {}  # gradient norms by optimizer
        self._learning_rates = LearningRates()
        self._updates_at_row = 0
        self._is_active = self._reduces = self._follows_backward = False
        self._found: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out live tensors."""
        live = {"_latest": {}, "_latest_logged": {}, "_norms": {}, "_logged": LoggedValues()}
        return {**super().__getstate__(), **live}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule."""
        super().on_train_start(trainer, pl_module)
        self._clear()
        interval = self.cfg.metrics.every_n_steps or log_every_n_steps(trainer)
        self._updates_at_row = self.session.counters.updates
        self._every = Every(interval, last=self._updates_at_row)
        is_distributed = trainer.world_size > 1 and not getattr(trainer, "fast_dev_run", False)
        self._reduces = self.cfg.metrics.reduce_over_ranks and is_distributed
        self._is_active = self._reduces or self.session.tracker is not None
        self._follows_backward = gradients_may_change(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Follows the backward passes of a batch whose norm is due if the gradients may change before the update."""
        self.session.close_row()
        if self._follows_backward and self._needs_norm():
            with self.session.errors.guard("The gradient norm"):
                self.session.backward.start(self, trainer, pl_module, trainer.optimizers)

    def _needs_norm(self) -> bool:
        is_due = self._every.would_fire(self.session.counters.updates + 1)
        return is_due and self._is_active and self._selection.wants("grad_norm")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Computes the norm of the accumulated gradients before they are clipped, if a row is due."""
        if not self._needs_norm():
            return
        with self.session.errors.guard("The gradient norm"):
            if self._follows_backward:
                self.session.backward.keep(optimizer)
                return
            self._keep_norm(optimizer, gradient_norm(parameters_of(optimizer)))

    def _keep_norm(self, optimizer: Any, norm: torch.Tensor | None) -> None:
        if norm is not None:
            self._norms[id(optimizer)] = norm

    def _read_kept(self, trainer: Trainer) -> None:
        """Computes the norms of the optimizers that stepped in a batch whose backward passes were followed."""
        with self.session.errors.guard("The gradient norm"):
            for optimizer in trainer.optimizers:
                self._keep_norm(optimizer, norm_of(self.session.backward.kept(optimizer).values()))
            self.session.backward.stop(self)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the latest values, and writes a row if one is due."""
        counters = self.session.counters
        counters.advance(trainer, pl_module, outputs)
        if not self._is_active:
            return
        if outputs:
            self._keep(trainer, outputs)
        if not self._every.due(counters.updates):
            return
        if self._follows_backward:
            self._read_kept(trainer)
        with self.session.errors.guard("Logging metrics"):
            self._write_row(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the values since the last row, of this rank only, as other ranks may have ended."""
        self._reduces = False
        self._write_row(trainer, pl_module)
        self._write_epoch_row(trainer, pl_module)
        self._latest, self._latest_logged, self._norms, self._logged = {}, {}, {}, LoggedValues()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what Lightning drops after this hook: values of the latest batches, and the step of the epoch.

        The metrics of the epoch are not ready yet. To ask for them here would compute them on this rank only.
        """
        if not self._is_active:
            return
        self._has_ended_epoch = True  # on all ranks, even if what follows fails on this one
        with self.session.errors.guard("Logging metrics of an epoch"):
            self._logged.epoch_ends(trainer)
            self._latest_logged |= self._pick_logged(trainer)
            self._epoch_axes = self.session.counters.axes(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the metrics of the previous epoch."""
        with self.session.errors.guard("Logging metrics of an epoch"):
            self._write_epoch_row(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last rows, and warns of names in ``metric_list`` that never had a value."""
        with self.session.errors.guard("Logging metrics"):
            self._write_row(trainer, pl_module)
        with self.session.errors.guard("Logging metrics of an epoch"):
            self._write_epoch_row(trainer, pl_module)
        missing = self._selection.missing(self._found)
        if missing and self.session.tracker is not None:
            self.session.errors.warn_once(
                f"metric_list names {', '.join(missing)}, but training_step never returned such a value and the module "
                "never logged one. Return it from training_step, call self.log, or correct the name.",
                kind="missing metrics",
            )

    def _keep(self, trainer: Trainer, outputs: Mapping[str, Any]) -> None:
        self._loss_divisor = trainer.accumulate_grad_batches  # schedulers change it from epoch to epoch
        latest = self._latest
        for name, metric in self._plan(outputs):
            latest[metric] = detached(outputs[name])

    def _plan(self, values: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """Returns (name, metric) of those values of a batch that are logged, by the names of all."""
        names = tuple(values)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plans[names] = tuple(self._selection.pick(names).items())
        return plan

    def _write_row(self, trainer: Trainer, pl_module: LightningModule) -> None:
        updates = self.session.counters.updates
        if not self._is_active or updates <= self._updates_at_row:
            return
        self._updates_at_row = updates
        numbers = self._reduced(trainer, lambda: self._numbers(trainer, pl_module))
        logged = logged_on_step(trainer) if self.session.has_wandb_logger else {}
        self._write(trainer, pl_module, numbers, logged, self._epoch_axes)

    def _write_epoch_row(self, trainer: Trainer, pl_module: LightningModule) -> None:
        has_ended, self._has_ended_epoch = self._has_ended_epoch, False
        axes, self._epoch_axes = self._epoch_axes, None
        if not has_ended:
            return
        numbers = self._reduced(trainer, lambda: self._epoch_numbers(trainer))
        if numbers:
            logged = epoch_keys_of_loggers(trainer) if self.session.has_wandb_logger else set()
            self._write(trainer, pl_module, numbers, logged, axes)

    def _reduced(self, trainer: Trainer, read: Callable[[], dict[str, float]]) -> dict[str, float]:
        numbers: dict[str, float] = {}
        try:
            numbers = read()
        finally:  # the other ranks wait for this one even if it failed
            if self._reduces:
                numbers = reduce_over_ranks(Ranks(trainer).gather(numbers))
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
        latest, self._latest, norms, self._norms = self._latest, {}, self._norms, {}
        logged, self._latest_logged = self._latest_logged | self._pick_logged(trainer), {}
        values = {"grad_norm": total_norm(norms.values())} if norms else {}
        numbers = to_numbers({**values, **logged, **latest})
        if "loss" in latest and "loss" in numbers and pl_module.automatic_optimization:
            numbers["loss"] *= self._loss_divisor  # Lightning has divided this loss, and nothing else
        if self._selection.wants("lr"):
            numbers |= self._learning_rates.read(trainer.optimizers, pl_module)
        return numbers

    def _pick_logged(self, trainer: Trainer) -> dict[str, Any]:
        """Returns the values, by metric, that were logged for batches since the previous reading."""
        logged = self._logged.of_batches(trainer)
        return {metric: logged[name] for name, metric in self._plan(logged)}

    def _epoch_numbers(self, trainer: Trainer) -> dict[str, float]:
        logged = self._logged.of_epoch(trainer)
        metrics = self._selection.pick(logged).items()
        of_batches = {metric for plan in self._plans.values() for _, metric in plan}
        return to_numbers({metric + OF_EPOCH * (metric in of_batches): logged[name] for name, metric in metrics})


def gradient_norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """Returns the L2 norm of all gradients of parameters together, like :func:`norm_of`."""
    return norm_of([parameter.grad for parameter in parameters if parameter.grad is not None])


def norm_of(gradients: Collection[torch.Tensor]) -> torch.Tensor | None:
    """Returns the L2 norm of all tensors together, on the device of the first; None if there are none."""
    dense = [each.coalesce().values() if each.is_sparse else each for each in (grad.detach() for grad in gradients)]
    return total_norm(l2_norms(dense)) if dense else None


def total_norm(norms: Iterable[torch.Tensor]) -> torch.Tensor:
    """Combines the L2 norms of several tensors to that of all of them, on the device of the first."""
    parts = [norm.float() for norm in norms]
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack([part.to(parts[0].device) for part in parts]))
    return total
