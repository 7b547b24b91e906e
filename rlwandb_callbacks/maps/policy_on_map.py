"""States that a policy visits, placed on the map of a data set, and how far they lie from its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode, Floats
from rlwandb_callbacks.maps.data_map import DataMap
from rlwandb_callbacks.maps.neighbors import nearest
from rlwandb_callbacks.maps.ood_distance import SAME_STATE

MAX_STATES = 5_000
NEIGHBORS = 5
NEARBY = 0.1


@dataclass(frozen=True, kw_only=True)
class Visited:
    """M states of evaluation episodes.

    Args:
        observations: Shape ``[M, ...]``.
        episodes: Shape ``[M]``: index of the episode.
        steps: Shape ``[M]``: step in the episode.
        lengths: Shape ``[M]``: length of the episode.
    """

    observations: NDArray[np.float32]
    episodes: NDArray[np.int64]
    steps: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.steps)


def visited_states(episodes: Sequence[Episode]) -> Visited | None:
    """Collects the states of episodes that kept their observations; evenly thinned to at most 5,000 that are finite.

    Returns:
        None where there is none, or where the observations are of different shapes.
    """
    kept = [(i, episode) for i, episode in enumerate(episodes) if episode.observations is not None and episode.length]
    shapes = {episode.observations.shape[1:] for _, episode in kept if episode.observations is not None}
    if len(shapes) != 1:
        return None
    observations = np.concatenate([episode.observations for _, episode in kept if episode.observations is not None])
    steps = [np.arange(0, episode.length, episode.observation_stride) for _, episode in kept]
    counts = [len(of_episode) for of_episode in steps]
    finite = np.flatnonzero(np.isfinite(observations).reshape(len(observations), -1).all(axis=1))
    if not finite.size:
        return None
    rows = finite[np.linspace(0, len(finite) - 1, min(MAX_STATES, len(finite))).astype(np.int64)]
    return Visited(
        observations=observations[rows],
        episodes=np.repeat([i for i, _ in kept], counts)[rows],
        steps=np.concatenate(steps)[rows],
        lengths=np.repeat([episode.length for _, episode in kept], counts)[rows],
    )


@dataclass(frozen=True, kw_only=True)
class PlacedStates:
    """Visited states on the map of a data set.

    Args:
        visited: The states.
        points: Shape ``[M, 2]``: the middle of the places of the five nearest states of the data.
        distances: Shape ``[M]``: to the nearest state of the data, in feature space.
        ratios: Shape ``[M]``: the same in units of the data's own nearest-neighbor distance.
        ratio: Of the mean distances: ``dataset/ood_ratio``.
    """

    visited: Visited
    points: Floats
    distances: Floats
    ratios: Floats
    ratio: float

    def numbers(self) -> dict[str, float]:
        """``dataset/ood_distance`` and ``dataset/ood_ratio``."""
        return {"dataset/ood_distance": float(self.distances.mean()), "dataset/ood_ratio": self.ratio}


def place(visited: Visited, data_map: DataMap) -> PlacedStates:
    """Places visited states on a map.

    Args:
        visited: At least one state.
        data_map: Of the data set.

    Raises:
        ValueError: If the observations have another size than those of the data set, or their axes another order.
    """
    reference = data_map.reference
    features = data_map.scaler.features(visited.observations)
    count = min(NEIGHBORS, len(reference.features))
    indices, distances = nearest(features, reference.features, count=count)
    places = data_map.states[reference.rows[indices]]
    nearby = middle_of_near(places, reach=NEARBY * float(np.ptp(data_map.states, axis=0).max()))
    points = np.where(distances[:, :1] <= SAME_STATE, places[:, 0], nearby)
    to_data = reference.own_or(distances[:, 0], indices[:, 0])
    return PlacedStates(
        visited=visited,
        points=points,
        distances=to_data,
        ratios=reference.ratios(to_data),
        ratio=float(reference.ratios(to_data.mean(keepdims=True))[0]),
    )


def middle_of_near(places: Floats, *, reach: float) -> Floats:
    """The mean of those places that are near the first: a mean of all may lie where the map has nothing.

    Args:
        places: Shape ``[M, N, 2]``.
        reach: How far from the first place a place may be.

    Returns:
        Shape ``[M, 2]``.

    Example:
        >>> middle_of_near(np.array([[[0.0, 0.0], [2.0, 0.0], [90.0, 0.0]]]), reach=5)
        array([[1., 0.]])
    """
    is_near = np.linalg.norm(places - places[:, :1], axis=2, keepdims=True) <= reach
    return np.asarray((places * is_near).sum(axis=1) / is_near.sum(axis=1))
