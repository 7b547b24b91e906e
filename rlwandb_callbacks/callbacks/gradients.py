"""Logs histograms of gradients and parameters of the networks that train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.trained import trained_networks, trained_parameters
from rlwandb_callbacks.core.gradients import parameter_histograms
from rlwandb_callbacks.core.schedule import Every

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

    from rlwandb_callbacks.sinks.wandb_watch import Watch


class GradientsCallback(RLCallback):
    """Calls ``wandb.watch`` on what the optimizers train, and logs parameter histograms itself.

    ``wandb.watch`` takes parameter histograms from the forward pass of the root module, which a LightningModule never
    has in ``training_step``; and its hooks for them keep the module from being pickled. So gradients come from
    ``wandb.watch``, parameters from here, under the names that W&B gives them: ``gradients/<name>``,
    ``parameters/<name>``. Frozen copies such as target networks are left out, as no optimizer holds them.

    Example:
        >>> GradientsCallback({"gradients": {"log_freq": 500}}).cfg.gradients.log_freq
        500
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._watch: Watch | None = None
        self._every = Every(self.cfg.gradients.log_freq)
        self._first_update = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leaves W&B's hooks out."""
        return {**super().__getstate__(), "_watch": None}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts to watch."""
        super().on_train_start(trainer, pl_module)
        self._every = Every(self.cfg.gradients.log_freq)
        self._first_update = self.session.counters.updates
        if self.session.run is None or self.session.sink is None:
            return
        with self.session.guarded("Watching gradients"):
            self._start_watching(trainer, pl_module)

    def _start_watching(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from rlwandb_callbacks.sinks.wandb_watch import Watch

        cfg = self.cfg.gradients
        trained = trained_parameters(trainer.optimizers, pl_module)
        if cfg.log == "parameters" and not cfg.log_graph:
            return
        self._watch = Watch(
            self.session.run,
            trained,
            trained_networks(trained, pl_module),
            gradients=cfg.log != "parameters",
            log_freq=cfg.log_freq * backward_passes_per_update(trainer),
            log_graph=cfg.log_graph,
        )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Takes the graph's hooks off as soon as the networks have run once."""
        if self._watch is not None:
            with self.session.guarded("Logging the graph"):
                self._watch.finish_graph()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a row, which takes up the gradient histograms that W&B holds ready."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        updates_watched = self.session.counters.updates - self._first_update
        if self.session.sink is not None and self._every.due(updates_watched):
            with self.session.guarded("Logging gradients"):
                self._write_row(trainer, pl_module)

    def _write_row(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parameters = {}
        if self.cfg.gradients.log != "gradients":
            trained = trained_parameters(trainer.optimizers, pl_module)
            parameters = {name: tensor.detach().float().cpu().numpy() for name, tensor in trained.items()}
        self.session.write(trainer, pl_module, parameter_histograms(parameters))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops watching."""
        self.finish(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes all hooks."""
        if self._watch is not None:
            watch, self._watch = self._watch, None
            watch.close()


def backward_passes_per_update(trainer: Any) -> int:
    """How often gradients are accumulated before a step: ``wandb.watch`` counts backward passes."""
    return int(trainer.accumulate_grad_batches)
