"""Rows of gradients and parameters: norms, and histograms equal to those of ``wandb.watch``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlwandb_callbacks.callbacks.gradients.tensor_copies import HostArray, TensorCopies, stored_values
from rlwandb_callbacks.callbacks.loss_scale import divided
from rlwandb_callbacks.callbacks.trained_parameters import l2_norms
from rlwandb_callbacks.core.values import Histogram, Scalar, Value

GRADIENTS, PARAMETERS, NORMS = "gradients/", "parameters/", "norm/"
TOTAL_NORM = "grad_norm/total"
BINS = 64
BLOCK_ELEMENTS = 32_768  # blocks of this size stay in the processor's cache
_SMALL_SPAN, _LARGE_SPAN = 1e-30, 1e30  # beyond them, scaling under- or overflows in float32


def copy_gradients(
    parameters: Mapping[str, torch.Tensor], *, sample: int | None = None, scale: torch.Tensor | None = None
) -> TensorCopies:
    """Copies the gradients of parameters that have one, and their norms, without waiting for the device.

    At most ``sample`` elements of each gradient are copied; norms are those of all elements. Both are divided by
    ``scale``, the factor of the loss.
    """
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    return gradient_copies(gradients, sample=sample, scale=scale)


def gradient_copies(
    gradients: Mapping[str, torch.Tensor],
    *,
    sample: int | None = None,
    scale: torch.Tensor | None = None,
    are_owned: bool = False,
) -> TensorCopies:
    """Copies gradients like :func:`copy_gradients`; those that are owned change no more and are taken as they are."""
    merged = {name: grad.coalesce() if grad.is_sparse else grad for name, grad in gradients.items()}
    norms = [divided(norm, scale) for norm in l2_norms([stored_values(grad) for grad in merged.values()])]
    return TensorCopies(
        {f"{GRADIENTS}{name}": grad for name, grad in merged.items()},
        sample=sample,
        scalars={f"{NORMS}{name}": norm for name, norm in zip(merged, norms, strict=True)},
        divisor=scale,
        are_owned=are_owned,
    )


def copy_parameters(parameters: Mapping[str, torch.Tensor], *, sample: int | None = None) -> TensorCopies:
    """Copies parameters, at most ``sample`` elements of each."""
    return TensorCopies({f"{PARAMETERS}{name}": value for name, value in parameters.items()}, sample=sample)


def tensor_row(arrays: Mapping[str, HostArray]) -> dict[str, Value]:
    """Makes the values of a row from copies of :func:`copy_gradients` and :func:`copy_parameters` on the host.

    These are histograms under the keys of ``wandb.watch``; if there are gradients also ``grad_norm/<module>``,
    ``grad_norm/total`` and ``train/grad_nonfinite``, the number of copied elements that are NaN or infinite.
    """
    norms = {key.removeprefix(NORMS): float(array.values[0]) for key, array in arrays.items() if key.startswith(NORMS)}
    row: dict[str, Value] = {}
    nonfinite = 0
    for key, array in arrays.items():
        histogram = None if key.startswith(NORMS) else tensor_histogram(array)
        if histogram is not None:
            row[key] = histogram
        if key.startswith(GRADIENTS):
            finite = array.implicit_zeros if histogram is None else int(histogram.counts.sum())
            nonfinite += array.values.size + array.implicit_zeros - finite
    if norms:
        row["train/grad_nonfinite"] = Scalar(nonfinite)
        row |= {f"grad_norm/{module}": Scalar(norm) for module, norm in module_norms(norms).items()}
    return row


def tensor_histogram(array: HostArray) -> Histogram | None:
    """Counts the finite elements of a tensor in 64 bins from the smallest to the largest; None if there are none.

    As in ``wandb.watch``, edges are those of ``torch.linspace`` in ``float32``, for every type of tensor. If all
    elements are equal, there is one bin whose edges are equal.

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
    """Returns the smallest and the largest value; both are NaN if one element is."""
    return float(np.minimum.reduce(values)), float(np.maximum.reduce(values))


def _edges(low: float, high: float) -> NDArray[np.float64]:
    """Returns the edges of 64 bins, or those of one bin if ``low`` equals ``high``.

    They have the precision of ``float32``, and more only where edges would be equal or infinite. The call of torch
    names type and device: the defaults belong to the training, which changes them while this thread runs.
    """
    if low == high:
        return np.array([low, high])
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float32, device="cpu").numpy().astype(np.float64)
    return edges if (np.diff(edges) > 0).all() else np.linspace(low, high, BINS + 1)


def _bin_of_zero(edges: NDArray[np.float64]) -> int:
    """Returns the bin to which ``wandb.watch`` adds implicit zeros: the first one if no bin contains zero."""
    containing = np.flatnonzero((edges[:-1] <= 0) & (edges[1:] > 0))
    if containing.size:
        return int(containing[0])
    return edges.size - 2 if edges[-1] == 0 else 0


def count_bins(values: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.int64]:
    """Counts values in 64 bins of equal width, rounded like ``torch.histc`` but several times faster.

    Args:
        values: Finite values, shape ``[N]``, ``float32`` or ``float64``.
        low: Smallest value.
        high: Largest value, > ``low``.

    Example:
        >>> count_bins(np.array([0.0, 0.4, 1.0, 64.0], np.float32), 0.0, 64.0)[[0, 1, 63]]
        array([2, 1, 1])
    """
    dtype = values.dtype.type if _SMALL_SPAN < high - low < _LARGE_SPAN else np.float64
    start, width = dtype(low), (dtype(high) - dtype(low)) / dtype(BINS)
    counts = np.zeros(BINS + 1, np.int64)
    size = min(values.size, BLOCK_ELEMENTS)
    scaled, bins = np.empty(size, dtype), np.empty(size, np.uint8)
    for first in range(0, values.size, BLOCK_ELEMENTS):
        block = values[first : first + BLOCK_ELEMENTS]
        offsets, numbers = scaled[: block.size], bins[: block.size]
        np.subtract(block, start, out=offsets)
        np.divide(offsets, width, out=offsets)
        np.copyto(numbers, offsets, casting="unsafe")
        counts += np.bincount(numbers, minlength=BINS + 1)
    counts[BINS - 1] += counts[BINS]  # the largest value belongs to the last bin
    return counts[:BINS]


def module_norms(norms: Mapping[str, float]) -> dict[str, float]:
    """Combines the L2 norms of parameters, by dotted name, to those of the modules that own them, and to ``total``.

    A parameter that the root module owns keeps its name.

    Example:
        >>> module_norms({"q.0.weight": 3.0, "q.0.bias": 4.0, "log_alpha": 12.0})
        {'q.0': 5.0, 'log_alpha': 12.0, 'total': 13.0}
    """
    by_module: dict[str, list[float]] = defaultdict(list)
    for name, norm in norms.items():
        by_module[name.rpartition(".")[0] or name].append(norm)
    return {name: math.hypot(*parts) for name, parts in by_module.items()} | {"total": math.hypot(*norms.values())}
