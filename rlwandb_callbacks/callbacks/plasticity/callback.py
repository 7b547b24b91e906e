"""Logs whether the networks that train can still learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.plasticity.activations import ForwardPass, Probe, Weights, is_compiled, sampled_rows
from rlwandb_callbacks.callbacks.plasticity.measures import dormant_share, effective_rank, total_norm, update_to_weight
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.callbacks.trained_parameters import (
    named_networks,
    parameters_of,
    trained_networks,
    trained_parameters,
)
from rlwandb_callbacks.core.values import Scalar

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class PlasticityCallback(RLCallback):
    """Logs ``plasticity/…_<network>`` every ``plasticity.every_n_steps`` updates, of each network that trains.

    ``dormant_share``: share of τ-dormant neurons (Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep
    Reinforcement Learning"): neuron ``i`` of a layer of ``H`` neurons is dormant if
    ``E_x|h_i(x)| / (1/H Σ_k E_x|h_k(x)|) ≤ τ``, its activation ``h_i`` taken behind the nonlinearity.

    ``effective_rank``: of the features ``Φ`` that the last layer is given (Kumar et al. 2021, "Implicit
    Under-Parameterization Inhibits Data-Efficient Deep Reinforcement Learning"):
    ``min{k : Σ_{i≤k} σ_i(Φ) / Σ_i σ_i(Φ) ≥ 1 − δ}``. It is at most the number of rows: ``plasticity.batch_size``,
    or those of the batch if they are fewer.

    ``weight_norm``: L2 norm of all trained parameters, after the update (Lyle et al. 2023, "Understanding Plasticity in
    Neural Networks").

    ``update_to_weight``: ``‖w_after − w_before‖ / ‖w_before‖`` over the batch, whatever the optimizer (Karpathy 2015,
    CS231n, "Ratio of weights:updates").

    Activations are those of the first forward pass of the batch in which gradients are recorded, see
    :class:`rlwandb_callbacks.callbacks.plasticity.activations.ForwardPass`. Other batches cost nothing: there is
    neither a hook nor a copy. Of compiled networks only the weights are measured.

    Example:
        >>> PlasticityCallback({"plasticity": {"every_n_steps": 500}}).cfg.plasticity.every_n_steps
        500
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._every = Every(self.cfg.plasticity.every_n_steps)
        self._probe: Probe | None = None
        self._weights: dict[str, Weights] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what holds the networks."""
        return {**super().__getstate__(), "_probe": None, "_weights": {}}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks the networks up, so that a wrong name shows before the first step."""
        super().on_fit_start(trainer, pl_module)
        self._networks(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule."""
        super().on_train_start(trainer, pl_module)
        self._every = Every(self.cfg.plasticity.every_n_steps, last=self.session.counters.updates)

    def _networks(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, nn.Module]:
        names = self.cfg.plasticity.networks
        if names is not None:
            return named_networks(names, pl_module, setting="plasticity.networks")
        return trained_networks(trained_parameters(trainer.optimizers, pl_module), pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts to look, if a row is due after this batch."""
        if self.session.tracker is not None and self._every.would_fire(self.session.counters.updates + 1):
            self._stop_looking()
            with self.session.guarded("Measuring plasticity"):
                self._start_looking(trainer, pl_module)

    def _start_looking(self, trainer: Trainer, pl_module: LightningModule) -> None:
        networks = self._networks(trainer, pl_module)
        trained = trained_parameters(trainer.optimizers, pl_module).values()
        parameters = {name: parameters_of(network, trained) for name, network in networks.items()}
        self._weights = {name: Weights.copied(held) for name, held in parameters.items() if held}
        if not is_compiled(pl_module):
            self._probe = Probe(networks, lambda: self.session.guarded("Measuring plasticity"))

    def _stop_looking(self) -> tuple[dict[str, ForwardPass], dict[str, Weights]]:
        probe, weights, self._probe, self._weights = self._probe, self._weights, None, {}
        if probe is None:
            return {}, weights
        probe.close()
        return probe.passes, weights

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops looking, and writes a row."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        passes, weights = self._stop_looking()
        if self._every.due(self.session.counters.updates) and (passes or weights):
            with self.session.guarded("Measuring plasticity"):
                self._write_row(trainer, pl_module, passes, weights)

    def _write_row(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        passes: dict[str, ForwardPass],
        weights: dict[str, Weights],
    ) -> None:
        numbers: dict[str, float | None] = {}
        for name in passes | weights:
            found = self._of_pass(passes[name]) if name in passes else {}
            found |= of_weights(weights[name]) if name in weights else {}
            numbers |= {f"plasticity/{metric}_{name.replace('.', '_')}": number for metric, number in found.items()}
        row = {key: Scalar(number) for key, number in numbers.items() if number is not None}
        if row:
            self.session.write(trainer, pl_module, row)

    def _of_pass(self, forward: ForwardPass) -> dict[str, float | None]:
        cfg = self.cfg.plasticity
        layers = [layer.cpu().numpy() for layer in forward.activations]
        found: dict[str, float | None] = {"dormant_share": dormant_share(layers, threshold=cfg.dormant_threshold)}
        if forward.features is not None:
            rows = sampled_rows(forward.features, count=cfg.batch_size).float().cpu().numpy()
            found["effective_rank"] = effective_rank(rows, delta=cfg.effective_rank_delta)
        return found

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops looking, also after an exception in the middle of a batch."""
        self._stop_looking()


def of_weights(weights: Weights) -> dict[str, float | None]:
    """Size of a network's weights, and of what the batch added to them."""
    now, before, added = weights.norms().cpu().numpy()
    return {"weight_norm": total_norm(now), "update_to_weight": update_to_weight(added, before)}
