"""States that a policy visits: their position on the map of a data set, and their distance from its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode, Floats
from rlwandb_callbacks.maps.data_map import DataMap
from rlwandb_callbacks.maps.features import evenly_spaced

MAX_STATES = 5_000
NEIGHBORS = 5
NEARBY = 0.1
SAME_STATE = 1e-5


@dataclass(frozen=True, kw_only=True)
class VisitedStates:
    """M states of evaluation episodes.

    Observations, ``[M, ...]``, and for each the index of its episode, the step in it, and its length in steps, ``[M]``.
    """

    observations: NDArray[np.float32]
    episodes: NDArray[np.int64]
    steps: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.steps)


def visited_states(episodes: Sequence[Episode]) -> VisitedStates | None:
    """Collects the states of episodes that kept their observations: at most 5,000 finite ones, evenly spaced.

    Returns None if there are none, or if the observations differ in shape.
    """
    kept = {i: episode for i, episode in enumerate(episodes) if episode.length and episode.observations is not None}
    arrays = [episode.observations for episode in kept.values() if episode.observations is not None]
    if len({array.shape[1:] for array in arrays}) != 1:
        return None
    observations = np.concatenate(arrays)
    steps = [np.arange(0, episode.length, episode.observation_stride) for episode in kept.values()]
    counts = [len(of_episode) for of_episode in steps]
    finite = np.flatnonzero(np.isfinite(observations).reshape(len(observations), -1).all(axis=1))
    if not finite.size:
        return None
    rows = finite[evenly_spaced(len(finite), MAX_STATES)]
    return VisitedStates(
        observations=observations[rows],
        episodes=np.repeat(list(kept), counts)[rows],
        steps=np.concatenate(steps)[rows],
        lengths=np.repeat([episode.length for episode in kept.values()], counts)[rows],
    )


@dataclass(frozen=True, kw_only=True)
class PlacedStates:
    """Visited states on the map of a data set.

    Args:
        points: Shape ``[M, 2]``: mean position of the five nearest states of the data.
        distances: Shape ``[M]``: distance to the nearest state of the data, in feature space; for a state that is in
            the data, the distance of that state to the others.
        ratios: Shape ``[M]``: the same in units of the mean distance between neighbors in the data.
        ratio: Ratio of the mean distances: ``dataset/ood_ratio``.
    """

    visited: VisitedStates
    points: Floats
    distances: Floats
    ratios: Floats
    ratio: float

    def numbers(self) -> dict[str, float]:
        """Returns ``dataset/ood_distance`` and ``dataset/ood_ratio``."""
        return {"dataset/ood_distance": float(self.distances.mean()), "dataset/ood_ratio": self.ratio}


def place(visited: VisitedStates, data_map: DataMap) -> PlacedStates:
    """Places at least one visited state on the map of a data set.

    Raises:
        ValueError: If the observations have another size than those of the data set, or their axes another order.
    """
    reference = data_map.reference
    features = data_map.scaler.features(visited.observations)
    indices, distances = reference.nearest(features, min(NEIGHBORS, len(data_map.features)))
    positions = data_map.states[data_map.reference_rows[indices]]
    nearby = mean_of_nearby(positions, reach=NEARBY * float(np.ptp(data_map.states, axis=0).max()))
    is_in_data = distances[:, 0] <= SAME_STATE
    to_data = np.where(is_in_data, reference.distances[indices[:, 0]], distances[:, 0])
    return PlacedStates(
        visited=visited,
        points=np.where(is_in_data[:, None], positions[:, 0], nearby),
        distances=to_data,
        ratios=reference.ratios(to_data),
        ratio=float(reference.ratios(to_data.mean(keepdims=True))[0]),
    )


def mean_of_nearby(positions: Floats, *, reach: float) -> Floats:
    """Returns the mean of those of N positions, ``[M, N, 2]``, that are within ``reach`` of the first one.

    The mean of all may lie where the map has no points.

    Example:
        >>> mean_of_nearby(np.array([[[0.0, 0.0], [2.0, 0.0], [90.0, 0.0]]]), reach=5)
        array([[1., 0.]])
    """
    is_near = np.linalg.norm(positions - positions[:, :1], axis=2, keepdims=True) <= reach
    return np.asarray((positions * is_near).sum(axis=1) / is_near.sum(axis=1))
