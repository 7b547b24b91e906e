"""Nearest rows, exactly, in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats

CHUNK_ROWS = 512


def nearest(
    queries: NDArray[np.floating],
    base: NDArray[np.floating],
    *,
    count: int = 1,
    groups: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> tuple[NDArray[np.int64], Floats]:
    """Finds the nearest rows of ``base`` for each query.

    Args:
        queries: Shape ``[Q, F]``.
        base: Shape ``[R, F]``, R ≥ 1.
        count: How many, at most R.
        groups: Of the queries ``[Q]`` and of the base ``[R]``; rows of a query's own group are passed over.

    Returns:
        Indices ``[Q, count]``, nearest first, and distances ``[Q, count]``; ``inf`` where the own group leaves none.

    Example:
        >>> indices, distances = nearest(np.array([[2.0]]), np.array([[0.0], [3.0]]))
        >>> indices.item(), distances.item()
        (1, 1.0)
    """
    points, others = queries.astype(np.float64), base.astype(np.float64)
    squares = np.square(others).sum(axis=1)
    found = np.empty((len(points), count), dtype=np.int64)
    distances = np.empty((len(points), count))
    for start in range(0, len(points), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        nearness = squares - 2 * points[chunk] @ others.T
        if groups is not None:
            nearness[groups[0][chunk, None] == groups[1]] = np.inf
        found[chunk] = _smallest(nearness, count)
        exact = np.sqrt(np.square(others[found[chunk]] - points[chunk, None]).sum(axis=2))
        distances[chunk] = np.where(np.isinf(np.take_along_axis(nearness, found[chunk], axis=1)), np.inf, exact)
    return found, distances


def _smallest(rows: Floats, count: int) -> NDArray[np.int64]:
    if count == 1:
        return np.asarray(rows.argmin(axis=1)[:, None])
    few = np.argpartition(rows, count - 1, axis=1)[:, :count]
    order = np.take_along_axis(rows, few, axis=1).argsort(axis=1, kind="stable")
    return np.asarray(np.take_along_axis(few, order, axis=1))
