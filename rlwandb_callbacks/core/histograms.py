"""Histograms of samples and of discrete actions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.values import Histogram

MAX_BINS = 64


def histogram(samples: NDArray[np.generic], *, bins: int | None = None) -> Histogram | None:
    """Counts the finite samples of any shape in equal bins between their minimum and maximum.

    The default number of bins is that of Rice's rule, ``2 * n ** (1/3)``, at most 64. Equal samples, and samples with
    too few numbers between them for the bins, are counted in one bin around them. It is 1 wide, or 1 % of the samples
    if that is more. Returns None if no sample is finite.

    Example:
        >>> histogram(np.array([1.0, 1.0, 2.0, np.nan]), bins=2).counts
        array([2, 1])
    """
    values = np.asarray(samples, dtype=np.float64).ravel()
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return None
    low, high = float(finite.min()), float(finite.max())
    count = bins or min(MAX_BINS, math.ceil(2 * finite.size ** (1 / 3)))
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers that are too far apart
        edges = np.linspace(low, high, count + 1)
        if not (np.diff(edges) > 0).all():
            return Histogram(np.array([finite.size]), _edges_around(low, high))
    counts, _ = np.histogram(finite, bins=edges)
    return Histogram(counts, edges)


def _edges_around(low: float, high: float) -> NDArray[np.float64]:
    margin = 0.5 * max(1.0, 0.01 * max(abs(low), abs(high)))
    limit = np.finfo(np.float64).max
    return np.clip([low - margin, high + margin], -limit, limit)


def count_actions(actions: NDArray[np.generic], *, first: int, n: int) -> Histogram:
    """Counts ``n`` discrete actions, integers from ``first`` (``Discrete.start``), in bins centered on them.

    Example:
        >>> count_actions(np.array([1, 1, 0]), first=0, n=3).counts
        array([1, 2, 0])
    """
    counts = np.bincount(np.asarray(actions, dtype=np.int64) - first, minlength=n)
    return Histogram(counts, first - 0.5 + np.arange(n + 1, dtype=np.float64))
