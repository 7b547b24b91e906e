"""Logs histograms of gradients and parameters of the networks that train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.gradients.histograms import TOTAL_NORM, gradient_copies, parameter_copies, tensor_row
from rlwandb_callbacks.callbacks.gradients.tensor_copies import HostCopies, TensorCopies
from rlwandb_callbacks.callbacks.gradients.thread import BackgroundThread
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.callbacks.trained_parameters import trained_networks, trained_parameters
from rlwandb_callbacks.core.values import Value

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

    from rlwandb_callbacks.tracking.wandb_watch import Watch


class GradientsCallback(RLCallback):
    """Logs ``gradients/<name>``, ``parameters/<name>`` and ``grad_norm/<module>`` of what the optimizers train.

    Right before an update whose row is due, gradients are copied as the optimizer finds them: accumulated, unscaled,
    not clipped yet. The rest is done in a thread of its own, on the step that it belongs to. Keys and bins are those of
    ``wandb.watch``, which ``gradients.method: watch`` calls instead. Of several updates in one batch the last one
    counts; parameters are those after it. An optimizer that does not step when a row is due, such as that of an actor
    that is updated every second batch, has a row of its own when it steps next. Frozen copies such as target networks
    are left out, as no optimizer holds them. ``train/grad_nonfinite`` counts NaN and infinities, which histograms leave
    out.

    ``wandb.watch`` itself takes parameter histograms from the forward pass of the root module, which a LightningModule
    never has in ``training_step``; and its hooks for them keep the module from being pickled. So parameters come from
    here under either method.

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
        self._takes_gradients = False
        self._watch: Watch | None = None
        self._has_graph_hooks = False
        self._taken: dict[int, TensorCopies] = {}
        self._owed: set[int] = set()  # optimizers that have not stepped since the row in which they are missing

    def __getstate__(self) -> dict[str, Any]:
        """Leaves W&B's hooks, copies of gradients and the thread out."""
        return {
            **super().__getstate__(),
            "_watch": None,
            "_taken": {},
            "_owed": set(),
            "_background": BackgroundThread(),
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts to watch."""
        super().on_train_start(trainer, pl_module)
        self._clear()
        cfg, updates = self.cfg.gradients, self.session.counters.updates
        watches = cfg.method == "watch" and cfg.log != "parameters"
        self._first_update = updates if watches else 0  # wandb.watch counts anew in a training that is resumed
        self._every = Every(cfg.log_freq, last=updates - self._first_update)
        if self.session.tracker is None:
            return
        self._takes_gradients = cfg.method == "fused" and cfg.log != "parameters"
        if self.session.run is not None and (watches or cfg.log_graph):
            with self.session.guarded("Watching gradients"):
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
            log_freq=cfg.log_freq * backward_passes_per_update(trainer),
            log_graph=cfg.log_graph,
        )
        self._has_graph_hooks = cfg.log_graph

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Copies the gradients where a row is due; takes the graph's hooks off once the networks have run."""
        if self._has_graph_hooks:
            self._has_graph_hooks = False
            with self.session.guarded("Logging the graph"):
                assert self._watch is not None
                self._watch.finish_graph()
        if not self._takes_gradients:
            return
        is_due = self._every.would_fire(self.session.counters.updates + 1 - self._first_update)
        if is_due or id(optimizer) in self._owed:
            with self.session.guarded("Reading gradients"):
                self._taken[id(optimizer)] = self._gradients([optimizer], pl_module)

    def _gradients(self, optimizers: Iterable[Any], pl_module: LightningModule) -> TensorCopies:
        return gradient_copies(trained_parameters(optimizers, pl_module), sample=self.cfg.gradients.sample)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a row when one is due; that of ``wandb.watch`` takes up the histograms that W&B holds ready."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.session.tracker is None:
            return
        if self._every.due(self.session.counters.updates - self._first_update):
            with self.session.guarded("Logging gradients"):
                self._write_row(trainer, pl_module)
        elif not self._owed.isdisjoint(self._taken):
            with self.session.guarded("Logging gradients"):
                self._write_late_row(trainer, pl_module)

    def _write_row(self, trainer: Trainer, pl_module: LightningModule) -> None:
        cfg = self.cfg.gradients
        self._owed = {id(optimizer) for optimizer in trainer.optimizers} - self._taken.keys()
        taken, self._taken = list(self._taken.values()), {}
        if self._takes_gradients and not taken:  # none steps now, or the module does it behind Lightning's back
            taken.append(self._gradients(trainer.optimizers, pl_module))
            self._owed = set() if taken[0].flats else self._owed
        if cfg.log != "gradients":
            taken.append(parameter_copies(trained_parameters(trainer.optimizers, pl_module), sample=cfg.sample))
        copies = HostCopies(taken)
        if cfg.method == "watch":
            self.session.write(trainer, pl_module, tensor_row(copies.arrays()))
            return
        self._background.submit(partial(write_row, self.session.row_writer(trainer, pl_module), copies))
        self._report_errors()

    def _write_late_row(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._owed -= self._taken.keys()
        copies, self._taken = HostCopies(self._taken.values()), {}
        write = partial(write_row, self.session.row_writer(trainer, pl_module), copies, is_whole=False)
        self._background.submit(write)
        self._report_errors()

    def _report_errors(self) -> None:
        for error in self._background.errors():
            self.session.report("Logging gradients", error)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what is under way, and stops watching."""
        with self.session.guarded("Logging gradients"):
            self.finish(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Waits for rows that are under way, and removes all hooks."""
        self._taken = {}
        self._background.close()
        if self._watch is not None:
            watch, self._watch = self._watch, None
            watch.close()
        self._report_errors()


def write_row(write: Callable[[Mapping[str, Value]], None], copies: HostCopies, *, is_whole: bool = True) -> None:
    """Counts copies and writes their row; one that is not whole has no total of all gradients."""
    row = tensor_row(copies.arrays())
    write(row if is_whole else {key: value for key, value in row.items() if key != TOTAL_NORM})


def backward_passes_per_update(trainer: Any) -> int:
    """How often gradients are accumulated before a step: ``wandb.watch`` counts backward passes."""
    return int(trainer.accumulate_grad_batches)
