"""Conversion of values on any device to plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rlwandb_callbacks.callbacks.metric_names import WITH_RANGE


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

    On the CPU the tensor is ``float64``; other devices may not have that type, so there it is ``float32`` at least: the
    mean of half-precision numbers would be rounded to their three digits.
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
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


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
