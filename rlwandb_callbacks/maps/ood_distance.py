"""How near a data set's states lie to each other, as the measure of how far other states lie from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.maps.layout import distinct_rows
from rlwandb_callbacks.maps.neighbors import nearest
from rlwandb_callbacks.maps.tsne import Features

MAX_ROWS = 10_000
MAX_DISTINCT = 2_000
MIN_EPISODES = 5
SAME_STATE = 1e-5
FAR_OUT = 0.99


@dataclass(frozen=True, kw_only=True)
class Reference:
    """States of the data set that others are compared with.

    Args:
        rows: Shape ``[R]``: which rows of the map they are.
        features: Shape ``[R, F]``.
        own_distances: Shape ``[R]``: from each to the nearest state of another episode (of another row, where the data
            have fewer than five episodes), as a fresh episode has none of its own steps among the data.
        resolution: A hundredth of the mean distance between a state and the nearest one that differs, > 0.
    """

    rows: NDArray[np.int64]
    features: Features
    own_distances: Floats
    resolution: float

    @property
    def own_distance(self) -> float:
        """Mean of ``own_distances``, of which the largest hundredth is cut to the 99th percentile."""
        return float(np.minimum(self.own_distances, np.quantile(self.own_distances, FAR_OUT)).mean())

    def own_or(self, distances: Floats, indices: NDArray[np.int64]) -> Floats:
        """Distances to the data, in which a state that is one of the data (to 1e-5) counts as that one does.

        Args:
            distances: Shape ``[M]``: of states to the nearest one of ``features``.
            indices: Shape ``[M]``: which one that is.
        """
        return np.where(distances <= SAME_STATE, self.own_distances[indices], distances)

    def ratios(self, distances: Floats) -> Floats:
        """Distances in units of the data's own, both with ``resolution`` added: 1 is as near as the data."""
        return (distances + self.resolution) / (self.own_distance + self.resolution)


def make_reference(features: Features, episodes: NDArray[np.int64]) -> Reference:
    """Measures the states of a data set.

    Args:
        features: Shape ``[K, F]``, K ≥ 1; at most 10,000 rows are kept, evenly spaced.
        episodes: Shape ``[K]``: index of each row's episode.

    Example:
        >>> line = np.arange(10.0, dtype=np.float32)[:, None]
        >>> make_reference(line, np.zeros(10, np.int64)).own_distance
        1.0
    """
    rows = np.linspace(0, len(features) - 1, min(MAX_ROWS, len(features))).astype(np.int64)
    kept, groups = features[rows], episodes[rows]
    if len(np.unique(groups)) < MIN_EPISODES:
        groups = np.arange(len(rows))
    distances = nearest(kept, kept, groups=(groups, groups))[1][:, 0]
    own = np.where(np.isfinite(distances), distances, 0.0)
    return Reference(rows=rows, features=kept, own_distances=own, resolution=_resolution(kept))


def _resolution(features: Features) -> float:
    distinct = features[distinct_rows(features)[0]]
    if len(distinct) == 1:
        return 0.01
    some = np.linspace(0, len(distinct) - 1, min(MAX_DISTINCT, len(distinct))).astype(np.int64)
    return 0.01 * float(nearest(distinct[some], distinct, groups=(some, np.arange(len(distinct))))[1].mean())
