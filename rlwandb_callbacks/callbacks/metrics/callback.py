"""Logs training metrics: losses, learning rates, entropy, q-values, gradient norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.counters import log_every_n_steps, logged_on_step
from rlwandb_callbacks.callbacks.metric_names import WITH_RANGE, MetricSelection
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.core.values import Scalar

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class MetricsCallback(RLCallback):
    """Logs ``train/…`` every ``metrics.every_n_steps`` updates.

    Values come from the mapping that ``training_step`` returns, else from the metrics that the module logged. Learning
    rates come from the optimizers, and so does ``grad_norm`` if the module provides none. A row holds the latest value
    of each metric that was returned since the previous row, or that the Trainer holds. Values stay on their device, and
    nothing waits for it, until a row is due.

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
        self._latest: dict[str, Any] = {}  # values by metric
        self._plans: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}  # (name, metric) by the names of outputs
        self._norms: dict[int, torch.Tensor] = {}  # gradient norms by optimizer
        self._learning_rates = LearningRates()
        self._updates_at_row = 0
        self._is_active = self._reduces = False
        self._found: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out live tensors."""
        return {**super().__getstate__(), "_latest": {}, "_norms": {}}

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

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Computes the norm of the accumulated gradients before they are clipped, if a row is due."""
        is_due = self._every.would_fire(self.session.counters.updates + 1)
        if is_due and self._is_active and self._selection.wants("grad_norm"):
            with self.session.errors.guard("The gradient norm"):
                norm = gradient_norm(parameter for group in optimizer.param_groups for parameter in group["params"])
                if norm is not None:
                    self._norms[id(optimizer)] = norm

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the latest values, and writes a row if one is due."""
        counters = self.session.counters
        counters.advance(trainer, pl_module, outputs)
        if not self._is_active:
            return
        if outputs:
            self._keep(outputs)
        if self._every.due(counters.updates):
            with self.session.errors.guard("Logging metrics"):
                self._write_row(trainer, pl_module, reduces=self._reduces)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the values since the last row, of this rank only, as other ranks may have ended."""
        self._write_row(trainer, pl_module, reduces=False)
        self._latest, self._norms = {}, {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last row, and warns of names in ``metric_list`` that never had a value."""
        with self.session.errors.guard("Logging metrics"):
            self._write_row(trainer, pl_module, reduces=self._reduces)
        missing = self._selection.missing(self._found)
        if missing and self.session.tracker is not None:
            self.session.errors.warn_once(
                f"metric_list names {', '.join(missing)}, but training_step never returned such a value and the module "
                "never logged one. Return it from training_step, call self.log, or correct the name.",
                kind="missing metrics",
            )

    def _keep(self, outputs: Mapping[str, Any]) -> None:
        names = tuple(outputs)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plans[names] = tuple(self._selection.pick(names).items())
        latest = self._latest
        for name, metric in plan:
            latest[metric] = detached(outputs[name])

    def _write_row(self, trainer: Trainer, pl_module: LightningModule, *, reduces: bool) -> None:
        updates = self.session.counters.updates
        if not self._is_active or updates <= self._updates_at_row:
            return
        self._updates_at_row = updates
        numbers: dict[str, float] = {}
        try:
            numbers = self._numbers(trainer, pl_module)
        finally:  # the other ranks wait for this one even if it failed
            if reduces:
                numbers = reduce_over_ranks(Ranks(trainer).gather(numbers))
        self._found |= numbers.keys()
        if self.session.tracker is None:
            return
        values = {f"train/{metric}": Scalar(number) for metric, number in numbers.items()}
        if not self._is_written:
            self.session.notify(trainer, pl_module, values)
            return
        logged = logged_on_step(trainer) if self.session.has_wandb_logger else {}
        written = {key: value for key, value in values.items() if self.session.key_in_run(key) not in logged}
        self.session.write(trainer, pl_module, written, logged_elsewhere=values)

    def _numbers(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        latest, self._latest, norms, self._norms = self._latest, {}, self._norms, {}
        logged = {key: value for key, value in trainer.callback_metrics.items() if key not in self.session.published}
        values = {"grad_norm": total_norm(norms.values())} if norms else {}
        values |= {metric: logged[name] for name, metric in self._selection.pick(logged).items()}
        numbers = to_numbers({**values, **latest})
        if self._selection.wants("lr"):
            numbers |= self._learning_rates.read(trainer.optimizers, pl_module)
        return numbers


def to_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Averages each value to one number, with one copy to the host per device; leaves out values without numbers.

    Q-values of more than one element also have ``<metric>_min`` and ``<metric>_max``.

    Example:
        >>> to_numbers({"q_value": torch.tensor([1.0, 3.0])})
        {'q_value': 2.0, 'q_value_min': 1.0, 'q_value_max': 3.0}
    """
    reduced: dict[str, torch.Tensor] = {}
    for metric, value in values.items():
        tensor = as_tensor(value)
        if tensor is None or tensor.numel() == 0:
            continue
        reduced[metric] = tensor.mean()
        if metric in WITH_RANGE and tensor.numel() > 1:
            reduced |= {f"{metric}_min": tensor.min(), f"{metric}_max": tensor.max()}
    numbers: dict[str, float] = {}
    for device in {tensor.device for tensor in reduced.values()}:
        names = [name for name, tensor in reduced.items() if tensor.device == device]
        numbers |= zip(names, torch.stack([reduced[name] for name in names]).tolist(), strict=True)
    return {name: numbers[name] for name in reduced}


def detached(value: Any) -> Any:
    """Detaches tensors, and tensors in lists, so that keeping them does not keep their graph."""
    if isinstance(value, torch.Tensor):
        return value.detach() if value.requires_grad else value
    return [detached(entry) for entry in value] if isinstance(value, list | tuple) else value


def as_tensor(value: Any) -> torch.Tensor | None:
    """Converts a value to a real floating-point tensor on its device; None if it holds no numbers.

    On the CPU the tensor is ``float64``; other devices may not have that type.
    """
    if isinstance(value, torch.Tensor):
        return None if value.is_complex() else _as_float(value.detach())
    if isinstance(value, list | tuple) and any(isinstance(entry, torch.Tensor) for entry in value):
        entries = [entry for entry in map(as_tensor, value) if entry is not None]
        return torch.cat([entry.reshape(-1).to(entries[0].device) for entry in entries]) if entries else None
    try:
        return None if value is None else torch.from_numpy(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        return None


def _as_float(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor.double()
    return tensor if tensor.is_floating_point() else tensor.float()


def reduce_over_ranks(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Takes the minimum of ``…_min``, the maximum of ``…_max`` and the mean of others over the ranks that have them.

    Example:
        >>> reduce_over_ranks([{"loss": 1.0, "q_value_max": 5.0}, {"loss": 3.0, "q_value_max": 2.0, "entropy": 0.5}])
        {'loss': 2.0, 'q_value_max': 5.0, 'entropy': 0.5}
    """
    metrics = dict.fromkeys(metric for numbers in ranks for metric in numbers)
    found = {metric: [numbers[metric] for numbers in ranks if metric in numbers] for metric in metrics}
    reductions: dict[str, Any] = {"_min": np.min, "_max": np.max}
    return {metric: float(reductions.get(metric[-4:], np.mean)(values)) for metric, values in found.items()}


def gradient_norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """Returns the L2 norm of all gradients together, on the device of the first; None if there is no gradient."""
    gradients = [parameter.grad.detach() for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return None
    dense = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    return total_norm(torch._foreach_norm(dense))  # noqa: SLF001  # the only function of torch for many norms


def total_norm(norms: Iterable[torch.Tensor]) -> torch.Tensor:
    """Combines the L2 norms of several tensors to that of all of them, on the device of the first."""
    parts = [norm.float() for norm in norms]
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack([part.to(parts[0].device) for part in parts]))
    return total


class LearningRates:
    """Reads learning rates; their names are computed again only when the parameter groups change."""

    def __init__(self) -> None:
        self._groups: list[tuple[int, int]] = []
        self._names: list[str] = []

    def read(self, optimizers: Sequence[Optimizer], module: nn.Module) -> dict[str, float]:
        """Returns the learning rate of each parameter group, by name, and as ``lr`` that of the first group."""
        rates = [float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
        if len(rates) < 2:
            return dict(zip(("lr",), rates, strict=False))
        groups = [(id(optimizer), len(optimizer.param_groups)) for optimizer in optimizers]
        if groups != self._groups:
            self._groups, self._names = groups, learning_rate_names(optimizers, module)
        return {"lr": rates[0], **dict(zip(self._names, rates, strict=True))}


def learning_rate_names(optimizers: Sequence[Optimizer], module: nn.Module) -> list[str]:
    """Names the learning rate of each parameter group.

    Returns:
        ``lr``; for several optimizers ``lr_<part>``, after the part of the module that the optimizer trains; for
        several groups in an optimizer followed by ``_pg<i>``.
    """
    names_by_id = {id(parameter): name for name, parameter in module.named_parameters()}
    parts = [_trained_part(optimizer, names_by_id) or f"optimizer{i}" for i, optimizer in enumerate(optimizers)]
    names = []
    for index, (optimizer, part) in enumerate(zip(optimizers, parts, strict=True)):
        label = f"_{part}" if len(optimizers) > 1 else ""
        label += f"_{index}" if parts.count(part) > 1 else ""
        several = len(optimizer.param_groups) > 1
        names += [f"lr{label}_pg{i}" if several else f"lr{label}" for i in range(len(optimizer.param_groups))]
    return names


def _trained_part(optimizer: Optimizer, names_by_id: Mapping[int, str]) -> str:
    """Returns the common prefix of the names of all parameters of an optimizer, up to the first index."""
    paths = [names_by_id.get(id(p), "").split(".") for group in optimizer.param_groups for p in group["params"]]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1 or parts[0].isdigit():
            break
        common.append(parts[0])
    return "_".join(common)
