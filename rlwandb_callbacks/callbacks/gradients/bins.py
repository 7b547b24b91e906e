"""Counting what is in large arrays as ``wandb.watch`` does, and norms per module."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 64
BLOCK_ELEMENTS = 32_768  # what is computed with stays in the processor's cache
_SMALL_SPAN, _LARGE_SPAN = 1e-30, 1e30  # beyond them, float32 over- and underflows while it is scaled


def count_bins(values: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.int64]:
    """Counts values in 64 bins of equal width, with the very roundings of ``torch.histc``, several times faster.

    Args:
        values: Shape ``[N]``, ``float32`` or ``float64``, finite.
        low: The smallest of them.
        high: The largest of them, > ``low``.

    Returns:
        Shape ``[64]``.

    Example:
        >>> count_bins(np.array([0.0, 0.4, 1.0, 64.0], np.float32), 0.0, 64.0)[[0, 1, 63]]
        array([2, 1, 1])
    """
    kind = values.dtype.type if _SMALL_SPAN < high - low < _LARGE_SPAN else np.float64
    start, width = kind(low), (kind(high) - kind(low)) / kind(BINS)
    counts = np.zeros(BINS + 1, np.int64)
    size = min(values.size, BLOCK_ELEMENTS)
    scaled, bins = np.empty(size, kind), np.empty(size, np.uint8)
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
    """Puts the L2 norms of tensors together to those of the modules that own them, and to that of all.

    Args:
        norms: By dotted parameter name.

    Returns:
        By dotted module name, of a parameter that no sub-module owns by its own name; ``total`` for all together.

    Example:
        >>> module_norms({"q.0.weight": 3.0, "q.0.bias": 4.0, "log_alpha": 12.0})
        {'q.0': 5.0, 'log_alpha': 12.0, 'total': 13.0}
    """
    owned: dict[str, list[float]] = defaultdict(list)
    for name, norm in norms.items():
        owned[name.rpartition(".")[0] or name].append(norm)
    return {name: math.hypot(*parts) for name, parts in owned.items()} | {"total": math.hypot(*norms.values())}
