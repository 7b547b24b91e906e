"""Rows of gradients and parameters: histograms equal to those that ``wandb.watch`` makes, and norms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlwandb_callbacks.callbacks.gradients.bins import BINS, count_bins, module_norms
from rlwandb_callbacks.callbacks.gradients.tensor_copies import HostArray, TensorCopies, stored_values
from rlwandb_callbacks.core.values import Histogram, Scalar, Value

GRADIENTS, PARAMETERS, NORMS = "gradients/", "parameters/", "norm/"
TOTAL_NORM = "grad_norm/total"


def gradient_copies(parameters: Mapping[str, torch.nn.Parameter], *, sample: int | None = None) -> TensorCopies:
    """Copies the gradients of parameters, as far as these have some, and their norms; nothing waits for the device.

    Args:
        parameters: By dotted name.
        sample: Elements of each gradient to copy at most; norms are of all.
    """
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    merged = {name: grad.coalesce() if grad.is_sparse else grad for name, grad in gradients.items()}
    stored = [stored_values(grad) for grad in merged.values()]
    norms: Any = torch._foreach_norm(stored) if stored else []  # noqa: SLF001  # torch's own way to do it in one pass
    return TensorCopies(
        {f"{GRADIENTS}{name}": grad for name, grad in merged.items()},
        sample=sample,
        numbers={f"{NORMS}{name}": norm for name, norm in zip(merged, norms, strict=True)},
    )


def parameter_copies(parameters: Mapping[str, torch.nn.Parameter], *, sample: int | None = None) -> TensorCopies:
    """Copies parameters, at most ``sample`` elements of each."""
    return TensorCopies({f"{PARAMETERS}{name}": value for name, value in parameters.items()}, sample=sample)


def tensor_row(arrays: Mapping[str, HostArray]) -> dict[str, Value]:
    """Makes the values of a row from copies that have arrived.

    Args:
        arrays: Those of :func:`gradient_copies` and :func:`parameter_copies`.

    Returns:
        Histograms under the keys of ``wandb.watch``; where there are gradients, also ``grad_norm/<module>``,
        ``grad_norm/total``, and ``train/grad_nonfinite``, the number of NaN and infinite elements among the copied.
    """
    norms = {key.removeprefix(NORMS): float(array.values[0]) for key, array in arrays.items() if key.startswith(NORMS)}
    row: dict[str, Value] = {}
    nonfinite = 0
    for key, array in arrays.items():
        counted = None if key.startswith(NORMS) else tensor_histogram(array)
        if counted is not None:
            row[key] = counted
        if key.startswith(GRADIENTS):
            nonfinite += array.element_count - (array.implicit_zeros if counted is None else int(counted.counts.sum()))
    if norms:
        row["train/grad_nonfinite"] = Scalar(nonfinite)
        row |= {f"grad_norm/{module}": Scalar(norm) for module, norm in module_norms(norms).items()}
    return row


def tensor_histogram(array: HostArray) -> Histogram | None:
    """Counts the finite elements of a tensor in 64 bins between their extremes.

    Edges are those of ``torch.linspace`` in torch's default type, whatever the tensor's, as in ``wandb.watch``.

    Returns:
        None where no element is finite. One bin, whose edges are equal, where all elements are equal.

    Example:
        >>> tensor_histogram(HostArray(np.array([1.0, 1.0, np.nan], np.float32))).counts
        array([2])
    """
    values = array.values
    if values.size == 0:
        return None
    low, high = _extremes(values)
    if not (math.isfinite(low) and math.isfinite(high)):
        values = values[np.isfinite(values)]
        if values.size == 0:
            return None
        low, high = _extremes(values)
    if array.implicit_zeros:
        low, high = min(low, 0.0), max(high, 0.0)
    edges = _edges(low, high)
    counts = np.array([values.size]) if low == high else count_bins(values, low, high)
    if array.implicit_zeros:
        counts[_bin_of_zero(edges)] += array.implicit_zeros
    return Histogram(counts, edges)


def _extremes(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Smallest and largest value, both NaN where there is one."""
    return float(np.minimum.reduce(values)), float(np.maximum.reduce(values))


def _edges(low: float, high: float) -> NDArray[np.float64]:
    if low == high:
        return torch.tensor([low, high]).numpy().astype(np.float64)
    return torch.linspace(low, high, BINS + 1).numpy().astype(np.float64)


def _bin_of_zero(edges: NDArray[np.float64]) -> int:
    """The bin that ``wandb.watch`` adds implicit zeros to: the first where none holds zero."""
    holding = np.flatnonzero((edges[:-1] <= 0) & (edges[1:] > 0))
    if holding.size:
        return int(holding[0])
    return edges.size - 2 if edges[-1] == 0 else 0
