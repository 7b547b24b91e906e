"""From feature vectors to points in the plane, whatever the vectors are: few, equal, repeated, on a line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.maps.features import bulk_limits
from rlwandb_callbacks.maps.neighbors import nearest
from rlwandb_callbacks.maps.tsne import Features, Progress, pca, tsne

MIN_TSNE_ROWS = 12
SAME = 1e-4
GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
REPEAT_STEP = 0.002
REPEAT_RADIUS = 0.02
LARGE_STEP = 0.006
FEW_PLACES = 500


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Points in the plane, and how they came there.

    Args:
        points: Shape ``[K, 2]``; a unit of its own.
        how: In words for a picture.
        notes: What a reader of the picture must know.
    """

    points: Floats
    how: str
    notes: tuple[str, ...] = ()


def lay_out(
    features: Features,
    *,
    method: str,
    engine: str,
    perplexity: float,
    seed: int,
    start: Floats | None = None,
    progress: Progress | None = None,
) -> Layout:
    """Lays rows out in the plane.

    Rows that are equal (to 1e-4 of the features' size) are laid out once, and drawn as a small disc around that place.
    With fewer than twelve distinct rows t-SNE has nothing to show, and principal components are drawn instead.

    Args:
        features: Shape ``[K, F]``, finite, K ≥ 1.
        method: ``tsne`` or ``pca``.
        engine: ``opentsne`` or ``sklearn``.
        perplexity: Of t-SNE; made smaller where there are fewer than three times as many rows.
        seed: Of t-SNE.
        start: Shape ``[K, 2]``: a layout of the same rows to start from.
        progress: Called with the share that is done.

    Example:
        >>> layout = lay_out(np.ones((3, 2), np.float32), method="tsne", engine="sklearn", perplexity=30, seed=0)
        >>> layout.how, layout.notes
        ('one place', ('all rows are equal',))
    """
    bulk = within_reach(features)
    distinct, inverse = distinct_rows(bulk)
    rows, count = bulk[distinct], len(distinct)
    if count == 1:
        return Layout(points=beside_each_other(np.zeros((1, 2)), inverse), how="one place", notes=EQUAL)
    if method == "pca" or count < MIN_TSNE_ROWS:
        few = () if method == "pca" else (f"{count} distinct rows are too few for t-SNE",)
        return Layout(points=beside_each_other(pca(rows), inverse), how="PCA", notes=few)
    fitting = min(perplexity, (count - 1) / 3.0)
    first = None if start is None else start[distinct]
    points = tsne(rows, engine=engine, perplexity=fitting, seed=seed, start=first, progress=progress)
    how = f"t-SNE ({NAMES[engine]}, perplexity {fitting:.3g}, seed {seed})"
    return Layout(points=beside_each_other(points, inverse), how=how)


EQUAL = ("all rows are equal",)
NAMES = {"opentsne": "openTSNE", "sklearn": "scikit-learn"}


def within_reach(features: Features) -> Features:
    """Pulls what lies farther from the bulk of a column than that is wide to its edge; a layout is lost on outliers."""
    low, high = bulk_limits(features)
    reach = np.where(high > low, high - low, np.inf)
    return np.clip(features, low - reach, high + reach).astype(np.float32)


def distinct_rows(features: Features) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Finds rows that differ.

    Returns:
        Indices of the first of each, ascending, ``[U]``; and for each row the place of its like among them, ``[K]``.

    Example:
        >>> distinct_rows(np.array([[5.0], [1.0], [5.0]], dtype=np.float32))
        (array([0, 1]), array([0, 1, 0]))
    """
    size = float(np.sqrt(np.mean(np.square(features, dtype=np.float64))))
    keys = np.round(features.astype(np.float64) / (SAME * size if size > 0 else 1.0)).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[inverse.reshape(-1)]


def beside_each_other(points: Floats, inverse: NDArray[np.int64]) -> Floats:
    """Gives each row a place: that of its like, and the repeats around it as the seeds in a sunflower.

    Args:
        points: Shape ``[U, 2]``.
        inverse: Shape ``[K]``: which of the points a row belongs to.

    Returns:
        Shape ``[K, 2]``.
    """
    counts = np.bincount(inverse, minlength=len(points))
    order = np.argsort(inverse, kind="stable")
    rank = np.empty(len(inverse), dtype=np.int64)
    rank[order] = np.arange(len(inverse)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = float(np.ptp(points, axis=0).max()) or 1.0
    apart = min(LARGE_STEP, _room(points) / np.sqrt(counts.max()) / width)
    step = np.maximum(apart, np.minimum(REPEAT_STEP, REPEAT_RADIUS / np.sqrt(counts)))[inverse] * width
    radius, angle = step * np.sqrt(rank), rank * GOLDEN_ANGLE
    return np.asarray(points[inverse] + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def _room(points: Floats) -> float:
    """How large the disc around a place may be: nearly half of the small distances to the next one, for few places."""
    if not 1 < len(points) <= FEW_PLACES:
        return 0.0
    places = np.arange(len(points))
    return 0.45 * float(np.quantile(nearest(points, points, groups=(places, places))[1], 0.1))
