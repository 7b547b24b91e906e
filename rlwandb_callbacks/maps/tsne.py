"""Layouts of feature vectors in the plane: t-SNE with openTSNE or scikit-learn, and PCA for few distinct vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.maps.features import Features, bulk_limits, distinct_rows

Progress: TypeAlias = Callable[[float], None]

MIN_TSNE_ROWS = 12
MAX_EXACT_ROWS = 50_000
EXAGGERATION = 12.0
ITERATIONS = 300
EXAGGERATED_ITERATIONS = {"opentsne": 125, "sklearn": 250}
INITIAL_SPREAD = 1e-4
WARM_START_SCALE = 0.1
ITERATIONS_PER_REPORT = 25
SINGLE_POINT = "single point"
# In pictures, and on PyPI.
ENGINE_NAMES = {"opentsne": "openTSNE", "sklearn": "scikit-learn"}
GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
DUPLICATE_STEP = 0.002
MAX_DUPLICATE_STEP = 0.006
MAX_DISC_RADIUS = 0.02
MAX_SPACED_POINTS = 500


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Points, ``[K, 2]`` in arbitrary units; how they were computed, in words; notes for readers of the pictures."""

    points: Floats
    method: str
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

    Equal rows (to 1e-4 of the features' size) are laid out once and drawn as a small disc around that point. Principal
    components are drawn if there are fewer than twelve distinct rows, too few for t-SNE.

    Args:
        features: Shape ``[K, F]``, finite, K ≥ 1.
        method: ``tsne`` or ``pca``.
        engine: ``opentsne`` or ``sklearn``.
        perplexity: Perplexity of t-SNE; limited to a third of the number of distinct rows.
        seed: Seed of t-SNE.
        start: Shape ``[K, 2]``: initial layout of the same rows.
        progress: Called with the fraction that is done.

    Example:
        >>> layout = lay_out(np.ones((3, 2), np.float32), method="tsne", engine="sklearn", perplexity=30, seed=0)
        >>> layout.method, layout.notes
        ('single point', ('all rows are equal',))
    """
    bulk = clip_outliers(features)
    distinct, inverse = distinct_rows(bulk)
    rows, count = bulk[distinct], len(distinct)
    if count == 1:
        points = spread_duplicates(np.zeros((1, 2)), inverse)
        return Layout(points=points, method=SINGLE_POINT, notes=("all rows are equal",))
    if method == "pca" or count < MIN_TSNE_ROWS:
        notes = () if method == "pca" else (f"{count} distinct rows are too few for t-SNE",)
        return Layout(points=spread_duplicates(pca(rows), inverse), method="PCA", notes=notes)
    fitting = min(perplexity, (count - 1) / 3.0)
    first = None if start is None else start[distinct]
    points = tsne(rows, engine=engine, perplexity=fitting, seed=seed, start=first, progress=progress)
    description = f"t-SNE ({ENGINE_NAMES[engine]}, perplexity {fitting:.3g}, seed {seed})"
    return Layout(points=spread_duplicates(points, inverse), method=description)


def clip_outliers(features: Features) -> Features:
    """Limits the distance of values from the bulk of their column to the bulk's width; outliers would ruin a layout."""
    low, high = bulk_limits(features)
    reach = np.where(high > low, high - low, np.inf)
    return np.clip(features, low - reach, high + reach).astype(np.float32)


def choose_engine(engine: str) -> str:
    """Resolves ``auto``: openTSNE if it is installed, as it is three to seven times faster, else scikit-learn."""
    if engine != "auto":
        return engine
    return "opentsne" if find_spec("openTSNE") is not None else "sklearn"


def tsne(
    features: Features,
    *,
    engine: str,
    perplexity: float,
    seed: int,
    start: Floats | None = None,
    progress: Progress | None = None,
) -> Floats:
    """Computes a t-SNE layout, ``[K, 2]``, of K ≥ 12 rows, which must be finite and distinct (this is not checked).

    Exact neighbors, 125 iterations with early exaggeration (scikit-learn: 250) and 300 without; on one thread, so that
    the same rows and seed give the same layout. The perplexity, the effective number of neighbors, must be < K / 3. An
    initial layout, ``start``, is scaled to a tenth and optimized without early exaggeration, so that the result can be
    compared with it; by default, two principal components are the initial layout.
    """
    from threadpoolctl import threadpool_limits

    run = _run_opentsne if engine == "opentsne" else _run_sklearn
    for module in ("sklearn.manifold", "sklearn.neighbors", *(["openTSNE"] if engine == "opentsne" else [])):
        import_module(module)  # threadpool_limits reaches only libraries that are already loaded
    exaggerated = EXAGGERATED_ITERATIONS[engine] if start is None else 0
    with threadpool_limits(1):
        first = initial_layout(features) if start is None else start * WARM_START_SCALE
        layout = run(features, first, exaggerated, perplexity=perplexity, seed=seed, progress=progress)
    return np.asarray(layout, dtype=np.float64)


def initial_layout(features: Features) -> Floats:
    """Returns two tiny principal components; noise is added to the second one, as all rows may lie on a line."""
    layout = pca(features)
    layout[:, 1] += np.random.default_rng(0).normal(size=len(layout)) * 1e-2 * layout[:, 0].std()
    return np.asarray(INITIAL_SPREAD * layout / layout[:, 0].std())


def pca(features: Features) -> Floats:
    """Returns the first two principal components, ``[K, 2]``, with signs that do not depend on the machine.

    Example:
        >>> pca(np.array([[0.0], [2.0]], dtype=np.float32))
        array([[-1.,  0.],
               [ 1.,  0.]])
    """
    centered = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centered.T @ centered)
    widest = directions[:, ::-1][:, :2]
    widest = widest * np.sign(widest[np.abs(widest).argmax(axis=0), np.arange(widest.shape[1])])
    layout = np.zeros((len(features), 2))
    layout[:, : widest.shape[1]] = centered @ widest
    return layout


def neighbor_count(perplexity: float, rows: int) -> int:
    """Returns how many neighbors of a row t-SNE uses."""
    return min(rows - 1, int(3 * perplexity + 1))


def _run_opentsne(
    features: Features, first: Floats, exaggerated: int, *, perplexity: float, seed: int, progress: Progress | None
) -> Any:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors
    from sklearn.neighbors import NearestNeighbors

    if len(features) <= MAX_EXACT_ROWS:
        count = neighbor_count(perplexity, len(features))
        distances, indices = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features).kneighbors()
        affinities = PerplexityBasedNN(knn_index=PrecomputedNeighbors(indices, distances), perplexity=perplexity)
    else:
        affinities = PerplexityBasedNN(features, perplexity=perplexity, random_state=seed)
    # "fft" is faster from some thousand rows on; its coarser grid moves no point visibly.
    layout = TSNEEmbedding(first, affinities, random_state=seed, ints_in_interval=3)
    total = exaggerated + ITERATIONS
    if exaggerated:
        report = _progress_callback(progress, 0, total)
        layout.optimize(exaggerated, exaggeration=EXAGGERATION, momentum=0.8, inplace=True, **report)
    layout.optimize(ITERATIONS, momentum=0.8, inplace=True, **_progress_callback(progress, exaggerated, total))
    return layout


def _progress_callback(progress: Progress | None, done: int, total: int) -> dict[str, Any]:
    if progress is None:
        return {}

    def report(iteration: int, _error: float, _layout: Any) -> None:
        progress((done + iteration) / total)

    return {"callbacks": report, "callbacks_every_iters": ITERATIONS_PER_REPORT}


def _run_sklearn(
    features: Features, first: Floats, exaggerated: int, *, perplexity: float, seed: int, progress: Progress | None
) -> Any:
    from sklearn.manifold import TSNE
    from sklearn.neighbors import KNeighborsTransformer

    count = neighbor_count(perplexity, len(features))
    graph = KNeighborsTransformer(n_neighbors=count, algorithm="brute").fit_transform(features)
    layout: Any = first
    # Two runs, as the learning rate of a run is fixed: after the exaggeration it would be a hundredth of the right one.
    for exaggeration, iterations in [(EXAGGERATION, exaggerated)] * bool(exaggerated) + [(1.0, ITERATIONS)]:
        layout = TSNE(
            metric="precomputed",
            init=np.asarray(layout, dtype=np.float32),
            perplexity=perplexity,
            early_exaggeration=exaggeration,
            max_iter=iterations,
            random_state=seed,
        ).fit_transform(graph)
        if progress is not None:
            progress(0.5 if exaggeration > 1 else 1.0)
    return layout


def spread_duplicates(points: Floats, inverse: NDArray[np.int64]) -> Floats:
    """Places K duplicate rows around their shared points in a sunflower pattern; ``inverse`` is each row's point."""
    counts = np.bincount(inverse, minlength=len(points))
    order = np.argsort(inverse, kind="stable")
    position = np.empty(len(inverse), dtype=np.int64)
    position[order] = np.arange(len(inverse)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = float(np.ptp(points, axis=0).max()) or 1.0
    wide_step = min(MAX_DUPLICATE_STEP, _free_radius(points) / np.sqrt(counts.max()) / width)
    step = np.maximum(wide_step, np.minimum(DUPLICATE_STEP, MAX_DISC_RADIUS / np.sqrt(counts)))[inverse] * width
    radius, angle = step * np.sqrt(position), position * GOLDEN_ANGLE
    return np.asarray(points[inverse] + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def _free_radius(points: Floats) -> float:
    """Returns the largest radius of the discs: nearly half of the smaller distances between neighboring points."""
    if not 1 < len(points) <= MAX_SPACED_POINTS:
        return 0.0
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(points).kneighbors()
    return 0.45 * float(np.quantile(distances, 0.1))
