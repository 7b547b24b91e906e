"""Logs whether the trained networks can still learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.plasticity import measures
from rlwandb_callbacks.callbacks.plasticity.activations import (
    ActivationRecorder,
    ForwardPass,
    is_compiled,
    sampled_rows,
)
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.callbacks.trained_parameters import (
    tensors_without_network,
    trained_networks,
    trained_parameters,
)
from rlwandb_callbacks.core.values import Scalar
from rlwandb_callbacks.errors import ConfigError, nearest

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class PlasticityCallback(RLCallback):
    """Logs ``plasticity/…_<network>`` every ``plasticity.every_n_steps`` updates, for each trained network.

    ``dead_share``: fraction of hidden neurons whose activation function is nearly flat for the whole batch: their mean
    slope ``E_x|dh_i/dpre_i|`` is below ``plasticity.dead_threshold``. It is 0 for healthy networks of all usual
    activation functions. Layers without an elementwise nonlinear function, recurrent layers, gates, layers within
    activation checkpointing and layers that are called with fewer than 8 inputs, or with equal ones only, are left out.

    ``dormant_share``: fraction of τ-dormant neurons (Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep
    Reinforcement Learning"): neuron ``i`` of a layer of ``H`` neurons is dormant if
    ``E_x|h_i(x)| / (1/H Σ_k E_x|h_k(x)|) ≤ τ``, where ``h_i`` is its activation after the nonlinearity. It compares
    neurons with their layer: saturated neurons of ``Tanh`` or ``Sigmoid`` are not counted, and one neuron with a very
    large activation makes all others dormant.

    ``effective_rank``: of the features ``Φ``, the input of the last layer (Kumar et al. 2021, "Implicit
    Under-Parameterization Inhibits Data-Efficient Deep Reinforcement Learning"):
    ``min{k : Σ_{i≤k} σ_i(Φ) / Σ_i σ_i(Φ) ≥ 1 − δ}``. It is at most the number of rows: ``plasticity.batch_size``, or
    those of the batch if they are fewer. It grows with the number of rows and the width, also for healthy networks, so
    no fixed limit separates healthy from collapsed features; compare values of equally many rows.

    ``weight_norm``: L2 norm of all trained parameters, after the update (Lyle et al. 2023, "Understanding Plasticity in
    Neural Networks").

    ``update_to_weight``: ``‖w_after − w_before‖ / ‖w_before‖`` over the batch, for any optimizer (Karpathy 2015,
    CS231n, "Ratio of weights:updates"). The first updates of Adam are large whatever the loss is: about
    ``lr · sqrt(3 · fan_in)`` with torch's initialization.

    Activations are those of the first forward pass of the batch in which gradients are recorded, see
    :class:`rlwandb_callbacks.callbacks.plasticity.activations.ForwardPass`. Other batches cost nothing: they have no
    hook and no copy. If the module or a part of it is compiled, only the weights are measured.

    Example:
        >>> PlasticityCallback({"plasticity": {"every_n_steps": 500}}).cfg.plasticity.every_n_steps
        500
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._every = Every(self.cfg.plasticity.every_n_steps)
        self._has_checked_names = False
        self._recorder: ActivationRecorder | None = None
        self._weights: dict[str, WeightUpdate] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out references to the networks."""
        return {**super().__getstate__(), "_recorder": None, "_weights": {}}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule."""
        super().on_train_start(trainer, pl_module)
        self._has_checked_names = False
        self._every = Every(self.cfg.plasticity.every_n_steps, last=self.session.counters.updates)

    def _networks(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, nn.Module]:
        names = self.cfg.plasticity.networks
        if names is not None:
            return named_networks(names, pl_module)
        return trained_networks(trained_parameters(trainer.optimizers, pl_module), pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts recording if a row is due after this batch.

        Before the first batch the networks are found, so that a wrong name is an error before the first step: by then
        the module has made also those of its ``on_fit_start`` and ``on_train_start``.
        """
        self.session.begin_batch(trainer, pl_module)
        if not self._has_checked_names:
            self._has_checked_names = True
            self._networks(trainer, pl_module)
        if self.session.tracker is not None and self._every.would_fire(self.session.counters.updates + 1):
            self._stop_recording()
            with self.session.errors.guard("Measuring plasticity"):
                self._start_recording(trainer, pl_module)

    def _start_recording(self, trainer: Trainer, pl_module: LightningModule) -> None:
        networks = self._networks(trainer, pl_module)
        trained = {id(parameter) for parameter in trained_parameters(trainer.optimizers, pl_module).values()}
        parameters: dict[str, list[torch.Tensor]] = {
            name: [p for p in network.parameters() if id(p) in trained] for name, network in networks.items()
        }
        if self.cfg.plasticity.networks is None:
            parameters |= tensors_without_network(trainer.optimizers, pl_module, networks.values())
        self._weights = {name: WeightUpdate(found) for name, found in parameters.items() if found}
        if not is_compiled(pl_module):
            self._recorder = ActivationRecorder(networks, lambda: self.session.errors.guard("Measuring plasticity"))

    def _stop_recording(self) -> tuple[dict[str, ForwardPass], dict[str, WeightUpdate]]:
        recorder, weights, self._recorder, self._weights = self._recorder, self._weights, None, {}
        if recorder is None:
            return {}, weights
        recorder.close()
        return recorder.passes, weights

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops recording, and writes a row if one is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        passes, weights = self._stop_recording()
        if self._every.due(self.session.counters.updates) and (passes or weights):
            with self.session.errors.guard("Measuring plasticity"):
                row = self._measure(passes, weights)
                if row:
                    self.session.write(trainer, pl_module, row)

    def _measure(self, passes: Mapping[str, ForwardPass], weights: Mapping[str, WeightUpdate]) -> dict[str, Scalar]:
        row: dict[str, Scalar] = {}
        for network in {**passes, **weights}:
            found = self._measure_pass(passes[network]) if network in passes else {}
            found |= weights[network].measure() if network in weights else {}
            suffix = network.replace(".", "_")
            row |= {f"plasticity/{name}_{suffix}": Scalar(value) for name, value in found.items() if value is not None}
        return row

    def _measure_pass(self, forward: ForwardPass) -> dict[str, float | None]:
        cfg = self.cfg.plasticity
        layers = [layer.cpu().numpy() for layer in forward.activations]
        dormant = measures.dormant_fraction(layers, threshold=cfg.dormant_threshold)
        slopes = [slope.cpu().numpy() for slope in forward.mean_slopes()]
        dead = measures.dead_fraction(slopes, threshold=cfg.dead_threshold)
        if dead is not None and dormant is not None and isnan(dormant):  # the slope of a ReLU at NaN is 1
            dead = dormant
        shares = {"dormant_share": dormant, "dead_share": dead}
        if forward.features is None:
            return shares
        rows = sampled_rows(forward.features, count=cfg.batch_size).float().cpu().numpy()
        rank = measures.effective_rank(rows, delta=cfg.effective_rank_delta)
        return {**shares, "effective_rank": rank}

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops recording, also after an exception within a batch."""
        self._stop_recording()


def named_networks(names: Sequence[str], module: nn.Module) -> dict[str, nn.Module]:
    """Finds sub-modules by their dotted names; raises a ConfigError for a name that the module does not have."""
    known = dict(module.named_modules())
    for name in names:
        if not name or name not in known:
            children = ", ".join(child for child, _ in module.named_children()) or "none"
            raise ConfigError(
                f"plasticity.networks names {name!r}, which {type(module).__name__} does not have."
                f"{nearest(name, known)} Its networks are {children}."
            )
    return {name: known[name] for name in names}


class WeightUpdate:
    """Update of the trained parameters of a network, from when this object is made until it is measured."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = parameters
        self._before = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def measure(self) -> dict[str, float | None]:
        """Returns the size of the weights after the update, and that of the update relative to the weights before."""
        update = [after - before for after, before in zip(self._parameters, self._before, strict=True)]
        rows = (self._parameters, self._before, update)
        norms = torch.stack([torch.linalg.vector_norm(w.float()).to(update[0].device) for row in rows for w in row])
        after_norms, before_norms, update_norms = norms.cpu().numpy().reshape(3, -1)
        ratio = measures.update_to_weight(update_norms, before_norms)
        return {"weight_norm": measures.total_norm(after_norms), "update_to_weight": ratio}
