"""Logs histograms of the gradients and parameters that the optimizers train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from rlwandb_callbacks.callbacks.backward_gradients import gradients_may_change
from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.grad_scalers import precision_scaler
from rlwandb_callbacks.callbacks.gradients.histograms import (
    TOTAL_NORM,
    copy_gradients,
    copy_parameters,
    gradient_copies,
    tensor_row,
)
from rlwandb_callbacks.callbacks.gradients.tensor_copies import HostTransfer, TensorCopies
from rlwandb_callbacks.callbacks.gradients.thread import BackgroundThread
from rlwandb_callbacks.callbacks.loss_scale import divided
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.callbacks.trained_parameters import (
    names_by_id,
    parameters_of,
    trained_networks,
    trained_parameters,
)
from rlwandb_callbacks.core.values import Value

if TYPE_CHECKING:
    import torch
    from pytorch_lightning import LightningModule, Trainer

    from rlwandb_callbacks.tracking.wandb_watch import Unscale, Watch

RowWriter: TypeAlias = Callable[[Mapping[str, Value]], None]


class GradientsCallback(RLCallback):
    """Logs ``gradients/<name>``, ``parameters/<name>`` and ``grad_norm/<module>`` of trained parameters.

    Right before an update whose row is due, the gradients are copied: accumulated, not clipped, and divided by the
    scale of a ``GradScaler``. A step that it skips has no row. Where the user's code may clip between backward and the
    update, as under manual optimization, they are copied at the end of each backward pass of the batch. A background
    thread does the rest, and writes the row on the step of the update. Keys and bins are those of ``wandb.watch``,
    which ``gradients.method: watch`` calls instead. If a batch has several updates, the last one counts; parameters
    are those after it. An optimizer that does not step when a row is due, such as that of an actor that is updated
    every second batch, has a row of its own at its next step. Frozen copies such as target networks belong to no
    optimizer and are left out. ``train/grad_nonfinite`` counts NaN and infinite elements, which histograms leave
    out.

    Parameters are read here under either method: ``wandb.watch`` takes them from the forward pass of the root module,
    which ``training_step`` never calls, and its hooks for them keep the module from being pickled.

    Example:
        >>> GradientsCallback({"gradients": {"log_freq": 500}}).cfg.gradients.log_freq
        500
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._background = BackgroundThread()
        self._clear()

    def _clear(self) -> None:
        self._every = Every(self.cfg.gradients.log_freq)
        self._first_update = 0
        self._reads_gradients = False
        self._follows_backward = False  # in batches whose row is due, or that of a late optimizer
        self._is_following = False  # in this batch
        self._watch: Watch | None = None
        self._has_graph_hooks = False
        self._copies: dict[int, TensorCopies] = {}  # gradients by optimizer
        self._late: set[int] = set()  # optimizers that have not stepped since the row in which they are missing

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the hooks of W&B, copies of gradients and the thread."""
        runtime: dict[str, Any] = {"_watch": None, "_copies": {}, "_late": set(), "_background": BackgroundThread()}
        return {**super().__getstate__(), **runtime}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule, and lets W&B watch the gradients or the graph if configured."""
        super().on_train_start(trainer, pl_module)
        self._clear()
        cfg, updates = self.cfg.gradients, self.session.counters.updates
        watches = cfg.method == "watch" and cfg.log != "parameters"
        self._first_update = updates if watches else 0  # wandb.watch counts from zero in a resumed training too
        self._every = Every(cfg.log_freq, last=updates - self._first_update)
        if self.session.tracker is None:
            return
        self._reads_gradients = cfg.method == "fused" and cfg.log != "parameters"
        self._follows_backward = self._reads_gradients and gradients_may_change(trainer, pl_module)
        if self.session.run is not None and (watches or cfg.log_graph):
            with self.session.errors.guard("Watching gradients"):
                self._start_watching(trainer, pl_module, gradients=watches)

    def _start_watching(self, trainer: Trainer, pl_module: LightningModule, *, gradients: bool) -> None:
        from rlwandb_callbacks.tracking.wandb_watch import Watch

        cfg = self.cfg.gradients
        trained = trained_parameters(trainer.optimizers, pl_module)
        self._watch = Watch(
            self.session.run,
            trained,
            trained_networks(trained, pl_module),
            gradients=gradients,
            log_freq=cfg.log_freq * trainer.accumulate_grad_batches,  # wandb.watch counts backward passes
            log_graph=cfg.log_graph,
            unscale=self._unscale_of(trainer, pl_module),
        )
        self._has_graph_hooks = cfg.log_graph

    def _unscale_of(self, trainer: Trainer, pl_module: LightningModule) -> Unscale | None:
        if pl_module.automatic_optimization and precision_scaler(trainer) is None:
            return None
        loss_scale = self.session.loss_scale
        owners = {id(parameter): each for each in trainer.optimizers for parameter in parameters_of(each)}
        return lambda parameter, grad: divided(grad, loss_scale.scale_in_backward(owners[id(parameter)]))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Follows the backward passes of a batch whose row is due if the gradients may change before the update."""
        self.session.begin_batch(trainer, pl_module)
        if not self._follows_backward:
            return
        is_due = self._is_next_due()
        self._is_following = is_due or bool(self._late)
        if not self._is_following:
            return
        with self.session.errors.guard("Reading gradients"):
            optimizers = [each for each in trainer.optimizers if is_due or id(each) in self._late]
            self.session.backward.start(self, optimizers)

    def _is_next_due(self) -> bool:
        return self._every.would_fire(self.session.counters.updates + 1 - self._first_update)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Copies the gradients if a row is due; removes the hooks of the graph once the networks have run."""
        self.session.loss_scale.follow()
        if self._has_graph_hooks:
            self._has_graph_hooks = False
            with self.session.errors.guard("Logging the graph"):
                assert self._watch is not None
                self._watch.finish_graph()
        if not self._reads_gradients:
            return
        if self._is_next_due() or id(optimizer) in self._late:
            with self.session.errors.guard("Reading gradients"):
                if self._follows_backward:
                    self.session.backward.keep(optimizer)
                else:
                    scale = self.session.loss_scale.scale_before_step(optimizer)
                    self._copies[id(optimizer)] = self._copy_gradients([optimizer], pl_module, scale)

    def _copy_gradients(
        self, optimizers: Iterable[Any], pl_module: LightningModule, scale: torch.Tensor | None = None
    ) -> TensorCopies:
        trained = trained_parameters(pl_module.trainer.optimizers, pl_module, of=optimizers)
        return copy_gradients(trained, sample=self.cfg.gradients.sample, scale=scale)

    def _name_gradients(self, gradients_by_id: Mapping[int, torch.Tensor], pl_module: LightningModule) -> TensorCopies:
        names = names_by_id(pl_module.trainer.optimizers, pl_module).items()
        gradients = {name: gradients_by_id[key] for key, name in names if key in gradients_by_id}
        return gradient_copies(gradients, sample=self.cfg.gradients.sample, are_owned=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a row if one is due; under ``watch``, W&B adds the histograms that it holds ready to that row."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.session.tracker is None:
            return
        is_due = self._every.due(self.session.counters.updates - self._first_update)
        if self._copies:
            with self.session.errors.guard("Reading gradients"):
                self._drop_skipped(trainer)
        if self._is_following:
            with self.session.errors.guard("Reading gradients"):
                self._read_kept(trainer, pl_module, is_due=is_due)
        if is_due or not self._late.isdisjoint(self._copies):
            write = self._write_row if is_due else self._write_late_row
            with self.session.errors.guard("Logging gradients"):
                write(trainer, pl_module)

    def _drop_skipped(self, trainer: Trainer) -> None:
        """Drops copies of gradients that overflowed, with which a ``GradScaler`` did not step."""
        for optimizer in trainer.optimizers:
            if id(optimizer) in self._copies and self.session.loss_scale.skipped(optimizer):
                del self._copies[id(optimizer)]

    def _has_skipped(self, trainer: Trainer) -> bool:
        return any(map(self.session.loss_scale.skipped, trainer.optimizers))

    def _read_kept(self, trainer: Trainer, pl_module: LightningModule, *, is_due: bool) -> None:
        """Takes the gradients of the optimizers that stepped; of all of them if none tried to."""
        backward = self.session.backward
        has_step = any(backward.kept(optimizer) for optimizer in trainer.optimizers)
        read = backward.present if is_due and not has_step and not self._has_skipped(trainer) else backward.kept
        for optimizer in trainer.optimizers:
            if is_due or id(optimizer) in self._late:
                gradients = read(optimizer)
                if gradients:
                    self._copies[id(optimizer)] = self._name_gradients(gradients, pl_module)
        backward.stop(self)

    def _write_row(self, trainer: Trainer, pl_module: LightningModule) -> None:
        cfg = self.cfg.gradients
        self._late = {id(optimizer) for optimizer in trainer.optimizers} - self._copies.keys()
        copies, self._copies = list(self._copies.values()), {}
        is_unseen = not copies and not self._has_skipped(trainer)  # no step now, or Lightning does not see it
        if self._reads_gradients and is_unseen:
            copies.append(self._copy_gradients(trainer.optimizers, pl_module))
            self._late = set() if copies[0].flat_tensors else self._late
        if cfg.log != "gradients":
            copies.append(copy_parameters(trained_parameters(trainer.optimizers, pl_module), sample=cfg.sample))
        transfer = HostTransfer(copies)
        if cfg.method == "watch":
            self.session.write(trainer, pl_module, tensor_row(transfer.arrays()))
        else:
            self._submit(trainer, pl_module, transfer)

    def _write_late_row(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._late -= self._copies.keys()
        transfer, self._copies = HostTransfer(self._copies.values()), {}
        self._submit(trainer, pl_module, transfer, has_total=False)

    def _submit(
        self, trainer: Trainer, pl_module: LightningModule, transfer: HostTransfer, *, has_total: bool = True
    ) -> None:
        write = self.session.row_writer(trainer, pl_module, self._background.submit)
        self._background.submit(partial(write_row, write, transfer, has_total=has_total))
        self._report_errors()

    def _report_errors(self) -> None:
        for error in self._background.errors():
            self.session.errors.report_error("Logging gradients", error)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes all hooks."""
        with self.session.errors.guard("Logging gradients"):
            self._remove_hooks()

    def _remove_hooks(self) -> None:
        self._copies = {}
        self.session.backward.stop(self)
        if self._watch is not None:
            watch, self._watch = self._watch, None
            watch.close()

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Waits for pending rows, and removes all hooks."""
        self._remove_hooks()
        self.session.close_row()
        self._background.close()
        self._report_errors()


def write_row(write: RowWriter, transfer: HostTransfer, *, has_total: bool = True) -> None:
    """Waits for copies and writes their row, without the total norm if the gradients of an optimizer are missing."""
    row: dict[str, Value] = {}
    try:
        row = tensor_row(transfer.arrays())
    finally:  # other values may wait in that row
        write(row if has_total else {key: value for key, value in row.items() if key != TOTAL_NORM})
