"""t-SNE by openTSNE where it is installed, else by scikit-learn: the same recipe on both."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats

Features: TypeAlias = NDArray[np.float32]
Progress: TypeAlias = Callable[[float], None]
Engine: TypeAlias = Callable[..., Floats]

EXACT_NEIGHBORS_ROWS = 50_000
EXAGGERATION = 12.0
EXAGGERATED_ITERATIONS = 125
ITERATIONS = 300
START_SPREAD = 1e-4
WARM_START = 0.1
REPORT_EVERY = 25


def choose_engine(engine: str) -> str:
    """The engine that is meant by ``auto``: openTSNE where it is installed, as it is three to seven times faster."""
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
    """Lays rows out in the plane so that near rows stay near.

    Exact neighbors, 125 iterations with early exaggeration (scikit-learn: 250) and 300 without; on one thread, so that
    the same rows and seed give the same layout. Checks nothing: rows must be finite, distinct, and more than a few.

    Args:
        features: Shape ``[K, F]``.
        engine: ``opentsne`` or ``sklearn``.
        perplexity: How many neighbors count, < K / 3.
        seed: Of whatever the engine draws.
        start: Shape ``[K, 2]``: a layout to start from, at a tenth of its size and without early exaggeration, so that
            both can be compared; by default two principal components.
        progress: Called with the share that is done.

    Returns:
        Shape ``[K, 2]``.
    """
    from threadpoolctl import threadpool_limits

    run = _by_opentsne if engine == "opentsne" else _by_sklearn
    for module in ("sklearn.manifold", "sklearn.neighbors", *(["openTSNE"] if engine == "opentsne" else [])):
        import_module(module)  # the limit holds for those pools of threads that are there already
    with threadpool_limits(1):
        first = first_layout(features) if start is None else start * WARM_START
        return np.asarray(
            run(features, first, exaggerate=start is None, perplexity=perplexity, seed=seed, progress=progress),
            dtype=np.float64,
        )


def first_layout(features: Features) -> Floats:
    """Two principal components, tiny; a second one of noise where the rows lie on a line."""
    layout = pca(features)
    layout[:, 1] += np.random.default_rng(0).normal(size=len(layout)) * 1e-2 * layout[:, 0].std()
    return np.asarray(START_SPREAD * layout / layout[:, 0].std())


def pca(features: Features) -> Floats:
    """The first two principal components, ``[K, 2]``, with signs that do not depend on the machine.

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


def nearest_neighbors(features: Features, count: int) -> tuple[NDArray[np.int64], Floats]:
    """The ``count`` nearest other rows of each row and their distances, both ``[K, count]``, nearest first.

    Exact, by scikit-learn's brute force, which is the fastest up to tens of thousands of rows.
    """
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features).kneighbors()
    return indices, distances


def neighbors_for(perplexity: float, rows: int) -> int:
    """How many neighbors t-SNE looks at."""
    return min(rows - 1, int(3 * perplexity + 1))


def _by_opentsne(
    features: Features, first: Floats, *, exaggerate: bool, perplexity: float, seed: int, progress: Progress | None
) -> Any:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    if len(features) <= EXACT_NEIGHBORS_ROWS:
        index = PrecomputedNeighbors(*nearest_neighbors(features, neighbors_for(perplexity, len(features))))
        affinities = PerplexityBasedNN(knn_index=index, perplexity=perplexity)
    else:
        affinities = PerplexityBasedNN(features, perplexity=perplexity, random_state=seed)
    # "fft" pays from some thousand rows on; its coarser grid moves no point by what can be seen.
    layout = TSNEEmbedding(first, affinities, random_state=seed, ints_in_interval=3)
    total = ITERATIONS + (EXAGGERATED_ITERATIONS if exaggerate else 0)
    if exaggerate:
        layout.optimize(
            EXAGGERATED_ITERATIONS,
            exaggeration=EXAGGERATION,
            momentum=0.8,
            inplace=True,
            **_reporting(progress, 0, total),
        )
    layout.optimize(ITERATIONS, momentum=0.8, inplace=True, **_reporting(progress, total - ITERATIONS, total))
    return layout


def _reporting(progress: Progress | None, before: int, total: int) -> dict[str, Any]:
    if progress is None:
        return {}

    def report(iteration: int, _error: float, _layout: Any) -> None:
        progress((before + iteration) / total)

    return {"callbacks": report, "callbacks_every_iters": REPORT_EVERY}


def _by_sklearn(
    features: Features, first: Floats, *, exaggerate: bool, perplexity: float, seed: int, progress: Progress | None
) -> Any:
    from scipy.sparse import csr_matrix
    from sklearn.manifold import TSNE

    rows = len(features)
    indices, distances = nearest_neighbors(features, neighbors_for(perplexity, rows))
    indices = np.concatenate([np.arange(rows)[:, None], indices], axis=1)  # scikit-learn counts the row itself
    distances = np.concatenate([np.zeros((rows, 1)), distances], axis=1)
    pointers = np.arange(0, indices.size + 1, indices.shape[1])
    graph = csr_matrix((distances.ravel(), indices.ravel(), pointers), shape=(rows, rows))
    layout: Any = first
    # Two calls, as the learning rate of one is fixed, and a hundredth of the right one after the exaggeration.
    for exaggeration, iterations in (((EXAGGERATION, 250),) if exaggerate else ()) + ((1.0, ITERATIONS),):
        machine = TSNE(
            metric="precomputed",
            init=np.asarray(layout, dtype=np.float32),
            perplexity=perplexity,
            early_exaggeration=exaggeration,
            max_iter=iterations,
            random_state=seed,
        )
        layout = machine.fit_transform(graph)
        if progress is not None:
            progress(0.5 if exaggeration > 1 else 1.0)
    return layout
