"""Distances between states of a data set: the unit for the distance of other states from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.maps.features import Features, distinct_rows, evenly_spaced

MAX_DISTINCT = 2_000
MIN_EPISODES = 5
CAP_QUANTILE = 0.99
WORKING_MEMORY_MIB = 64
FAR_AWAY = 1e30


@dataclass(frozen=True, kw_only=True)
class ReferenceStates:
    """States of the data set that other states are compared with.

    Args:
        features: Shape ``[R, F]``.
        distances: Shape ``[R]``: from each state to the nearest one of another episode (of another row, if the data
            have fewer than five episodes), as the data do not hold the other steps of a fresh episode either.
        resolution: A hundredth of the mean distance between a state and the nearest different one, > 0.
    """

    features: Features
    distances: Floats
    resolution: float

    @property
    def mean_distance(self) -> float:
        """Mean of ``distances`` after the largest 1 % are limited to the 99th percentile."""
        return float(np.minimum(self.distances, np.quantile(self.distances, CAP_QUANTILE)).mean())

    def nearest(self, features: Features, count: int) -> tuple[NDArray[np.int64], Floats]:
        """Returns indices and distances of the ``count`` ≤ R nearest states, both ``[M, count]``, nearest first."""
        indices = _nearest(self.features, features, count)
        return indices, _distances(features[:, None], self.features[indices])

    def ratios(self, distances: Floats) -> Floats:
        """Returns distances in units of ``mean_distance``, after ``resolution`` is added to both."""
        return (distances + self.resolution) / (self.mean_distance + self.resolution)


def measure_reference(features: Features, episodes: NDArray[np.int64]) -> ReferenceStates:
    """Measures the distances between R ≥ 1 states of a data set.

    Example:
        >>> line = np.arange(10.0, dtype=np.float32)[:, None]
        >>> measure_reference(line, np.zeros(10, np.int64)).mean_distance
        1.0
    """
    groups = episodes if len(np.unique(episodes)) >= MIN_EPISODES else np.arange(len(features))
    distances = _distances_to_other_groups(features, groups) if len(features) > 1 else np.zeros(1)
    return ReferenceStates(features=features, distances=distances, resolution=_resolution(features))


def _distances_to_other_groups(features: Features, groups: NDArray[np.int64]) -> Floats:
    from sklearn.metrics import pairwise_distances_chunked

    def nearest(distances: Floats, start: int) -> NDArray[np.int64]:
        distances[groups[start : start + len(distances), None] == groups] = np.inf
        return np.asarray(distances.argmin(axis=1))

    rows = features.astype(np.float64)
    chunks = pairwise_distances_chunked(rows, reduce_func=nearest, working_memory=WORKING_MEMORY_MIB)
    return _distances(rows, rows[np.concatenate(list(chunks))])


def _resolution(features: Features) -> float:
    distinct = features[distinct_rows(features)[0]]
    if len(distinct) == 1:
        return 0.01
    rows = evenly_spaced(len(distinct), MAX_DISTINCT)
    first, second = _nearest(distinct, distinct[rows], 2).T
    return 0.01 * float(_distances(distinct[rows], distinct[np.where(first == rows, second, first)]).mean())


def _nearest(features: Features, queries: Features, count: int) -> NDArray[np.int64]:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features.astype(np.float64))
    # Features overflow where a policy is far away; scikit-learn refuses infinities.
    finite = np.nan_to_num(queries.astype(np.float64), posinf=FAR_AWAY, neginf=-FAR_AWAY)
    return np.asarray(search.kneighbors(finite, return_distance=False))


def _distances(rows: NDArray[np.floating], others: NDArray[np.floating]) -> Floats:
    """Returns Euclidean distances along the last axis; exact, unlike those of a search by matrix products."""
    return np.asarray(np.linalg.norm(rows.astype(np.float64) - others, axis=-1))
