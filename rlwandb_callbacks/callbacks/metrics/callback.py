"""Logs what training says of itself: losses, learning rates, entropy, q-values, gradient norm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.counters import log_every_n_steps, logged_on_step
from rlwandb_callbacks.callbacks.metric_names import WITH_RANGE, MetricSelection
from rlwandb_callbacks.callbacks.metrics.rank_reduction import over_ranks
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.callbacks.schedule import Every
from rlwandb_callbacks.core.values import Scalar

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class MetricsCallback(RLCallback):
    """Logs ``train/…`` every ``metrics.every_n_steps`` updates.

    Values come from the mapping that ``training_step`` returns, else from what the module logged, else (``lr``) from
    the optimizers. A row holds the latest value of each metric that was returned since the row before, or that the
    Trainer holds; nothing is moved off the device, and nothing waits for it, until a row is due.

    Args:
        cfg: A config, or a mapping with its keys.
        is_written: Write the rows; else they are only looked at, by alerts.
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
        self._latest: dict[str, Any] = {}
        self._plans: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
        self._norms: dict[int, torch.Tensor] = {}
        self._row_at_update = 0
        self._takes_part = self._reduces = False
        self._seen: set[str] = set()
        self._lr_groups: tuple[Any, ...] = ()
        self._lr_names: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leaves live tensors out."""
        return {**super().__getstate__(), "_latest": {}, "_norms": {}}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the schedule."""
        super().on_train_start(trainer, pl_module)
        self._clear()
        interval = self.cfg.metrics.every_n_steps or log_every_n_steps(trainer)
        self._row_at_update = self.session.counters.updates
        self._every = Every(interval, last=self._row_at_update)
        is_distributed = trainer.world_size > 1 and not getattr(trainer, "fast_dev_run", False)
        self._reduces = self.cfg.metrics.reduce_over_ranks and is_distributed
        self._takes_part = self._reduces or self.session.tracker is not None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Takes the norm of the gradients: unscaled, accumulated, not clipped yet, and only when a row is due."""
        if not self._every.would_fire(self.session.counters.updates + 1) or not self._takes_part:
            return
        if self._selection.wants("grad_norm"):
            with self.session.guarded("The gradient norm"):
                norm = gradient_norm(parameter for group in optimizer.param_groups for parameter in group["params"])
                if norm is not None:
                    self._norms[id(optimizer)] = norm

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the latest values, and writes a row when one is due."""
        counters = self.session.counters
        counters.advance(trainer, pl_module, outputs)
        if not self._takes_part:
            return
        if outputs:
            self._keep(outputs)
        if self._every.due(counters.updates):
            with self.session.guarded("Logging metrics"):
                self._write_row(trainer, pl_module, reduces=self._reduces)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the values that came after the last row; of this rank alone, as others may be gone."""
        self._write_rest(trainer, pl_module, reduces=False)
        self._latest, self._norms = {}, {}

    def _write_rest(self, trainer: Trainer, pl_module: LightningModule, *, reduces: bool) -> None:
        if self._takes_part and self.session.counters.updates > self._row_at_update:
            self._write_row(trainer, pl_module, reduces=reduces)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last row, and says which of the metrics asked for never came."""
        with self.session.guarded("Logging metrics"):
            self._write_rest(trainer, pl_module, reduces=self._reduces)
        missing = self._selection.missing(self._seen)
        if missing and self.session.tracker is not None:
            self.session.warn_once(
                f"metric_list names {', '.join(missing)}, which neither training_step returned nor the module logged.",
                kind="missing metrics",
            )

    def _keep(self, outputs: Mapping[str, Any]) -> None:
        offered = tuple(outputs)
        plan = self._plans.get(offered)
        if plan is None:
            plan = self._plans[offered] = tuple(self._selection.pick(offered).items())
        latest = self._latest
        for name, ours in plan:
            latest[ours] = detached(outputs[name])

    def _write_row(self, trainer: Trainer, pl_module: LightningModule, *, reduces: bool) -> None:
        self._row_at_update = self.session.counters.updates
        numbers: dict[str, float] = {}
        try:
            numbers = self._numbers(trainer, pl_module)
        finally:  # whatever fails here, the other ranks wait for an answer
            shares = Ranks(trainer).gather(numbers) if reduces else [numbers]
        self._seen |= numbers.keys()
        if self.session.tracker is None:
            return
        ours = {f"train/{name}": Scalar(number) for name, number in over_ranks(shares).items()}
        if not self._is_written:
            self.session.tell(trainer, pl_module, ours)
            return
        theirs = logged_on_step(trainer) if self.session.shares_rows_with_lightning else {}
        written = {key: value for key, value in ours.items() if self.session.shown_as(key) not in theirs}
        self.session.write(trainer, pl_module, written, elsewhere=ours)

    def _numbers(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        latest, self._latest, norms, self._norms = self._latest, {}, self._norms, {}
        logged = {key: value for key, value in trainer.callback_metrics.items() if key not in self.session.published}
        offered = {ours: logged[name] for name, ours in self._selection.pick(logged).items()}
        if norms:
            offered = {"grad_norm": norm_of(norms.values()), **offered}
        numbers = to_numbers({**offered, **latest})
        return numbers | (self._learning_rates(trainer.optimizers, pl_module) if self._selection.wants("lr") else {})

    def _learning_rates(self, optimizers: Sequence[torch.optim.Optimizer], module: torch.nn.Module) -> dict[str, float]:
        groups = tuple((id(optimizer), len(optimizer.param_groups)) for optimizer in optimizers)
        if groups != self._lr_groups:
            self._lr_groups, self._lr_names = groups, learning_rate_names(optimizers, module)
        return named_learning_rates(optimizers, self._lr_names)


def gradient_norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """L2 norm of all gradients together, left on the device of the first; None where there is no gradient."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    dense = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    if not dense:
        return None
    norms: Any = torch._foreach_norm(  # noqa: SLF001  # torch's own way to do it in one pass
        [gradient.detach() for gradient in dense]
    )
    return norm_of(norms)


def norm_of(norms: Iterable[torch.Tensor]) -> torch.Tensor:
    """L2 norm of what has these L2 norms, on the device of the first."""
    parts = [norm.float() for norm in norms]
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack([part.to(parts[0].device) for part in parts]))
    return total


def to_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Averages each value to one number; tensors travel together, one copy per device.

    Args:
        values: Tensors, arrays, lists or numbers by canonical metric name. What is none of these is passed over.

    Returns:
        The mean by name; for q-values of more than one element also ``<name>_min`` and ``<name>_max``.

    Example:
        >>> to_numbers({"q_value": torch.tensor([1.0, 3.0])})
        {'q_value': 2.0, 'q_value_min': 1.0, 'q_value_max': 3.0}
    """
    reduced: dict[str, torch.Tensor] = {}
    for name, value in values.items():
        tensor = _as_tensor(value)
        if tensor is None or tensor.numel() == 0:
            continue
        reduced[name] = tensor.mean()
        if name in WITH_RANGE and tensor.numel() > 1:
            reduced |= {f"{name}_min": tensor.min(), f"{name}_max": tensor.max()}
    by_device: dict[torch.device, list[str]] = defaultdict(list)
    for name, tensor in reduced.items():
        by_device[tensor.device].append(name)
    numbers: dict[str, float] = {}
    for names in by_device.values():
        numbers |= zip(names, torch.stack([reduced[name] for name in names]).tolist(), strict=True)
    return {name: numbers[name] for name in reduced}


def detached(value: Any) -> Any:
    """Cuts tensors, and tensors in lists, off their graph, so that keeping them keeps nothing else."""
    if isinstance(value, torch.Tensor):
        return value.detach() if value.requires_grad else value
    return [detached(entry) for entry in value] if isinstance(value, list | tuple) else value


def _as_tensor(value: Any) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        return None if value.is_complex() else _as_float(value.detach())
    if isinstance(value, list | tuple) and any(isinstance(entry, torch.Tensor) for entry in value):
        entries = [entry for entry in map(_as_tensor, value) if entry is not None]
        return torch.cat([entry.reshape(-1).to(entries[0].device) for entry in entries]) if entries else None
    try:
        return None if value is None else torch.from_numpy(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        return None


def _as_float(tensor: torch.Tensor) -> torch.Tensor:
    """Double precision on the CPU, where it is free; other devices may not have it."""
    if tensor.device.type == "cpu":
        return tensor.double()
    return tensor if tensor.is_floating_point() else tensor.float()


def learning_rate_names(optimizers: Sequence[torch.optim.Optimizer], module: torch.nn.Module) -> list[str]:
    """Names the learning rate of each parameter group.

    Returns:
        ``lr``; of several optimizers ``lr_<part>`` for each, named after the part of the module that it trains; of
        several groups in an optimizer each with ``_pg<i>`` behind its name.
    """
    owners = {id(parameter): name for name, parameter in module.named_parameters()}
    parts = [_trained_part(optimizer, owners) or f"optimizer{index}" for index, optimizer in enumerate(optimizers)]
    names = []
    for index, (optimizer, part) in enumerate(zip(optimizers, parts, strict=True)):
        label = f"_{part}" if len(optimizers) > 1 else ""
        label += f"_{index}" if parts.count(part) > 1 else ""
        several = len(optimizer.param_groups) > 1
        names += [f"lr{label}_pg{i}" if several else f"lr{label}" for i in range(len(optimizer.param_groups))]
    return names


def named_learning_rates(optimizers: Iterable[torch.optim.Optimizer], names: Sequence[str]) -> dict[str, float]:
    """Reads the learning rate of each group, and as ``lr`` that of the very first.

    Args:
        optimizers: All of them.
        names: One for each group.
    """
    rates = [float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    if not rates:
        return {}
    first = {"lr": rates[0]}
    return first if len(rates) == 1 else first | dict(zip(names, rates, strict=True))


def _trained_part(optimizer: torch.optim.Optimizer, owners: Mapping[int, str]) -> str:
    trained = [owners.get(id(p), "").split(".") for group in optimizer.param_groups for p in group["params"]]
    if not trained:
        return ""
    common = []
    for parts in zip(*trained, strict=False):
        if len(set(parts)) > 1 or parts[0].isdigit():
            break
        common.append(parts[0])
    return "_".join(common)
