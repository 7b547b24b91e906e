"""Rows of offline data, and what is known of the episodes that they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.core.episode import Floats


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """A sample of K transitions, in the order in which the data set holds them.

    Args:
        observations: Shape ``[K, ...]``: the states in which the actions were taken; dict observations as one vector.
        actions: Shape ``[K]``, integers, for discrete actions; shape ``[K, D]``, floats, for others.
        rewards: Shape ``[K]``, in the environment's unit.
        rows: Shape ``[K]``: indices into the whole data set, ascending.
        episodes: Shape ``[K]``: index of each row's episode, from 0.
        steps: Shape ``[K]``: step in the episode, from 0.
        lengths: Shape ``[K]``: length of each row's episode, in steps.
        returns: Shape ``[K]``: undiscounted return of each row's whole episode.
        action_spec: Names or bounds of the actions.

    Raises:
        ValueError: If the arrays do not have the same length.
    """

    observations: NDArray[np.generic]
    actions: NDArray[np.generic]
    rewards: Floats
    rows: NDArray[np.int64]
    episodes: NDArray[np.int64]
    steps: NDArray[np.int64]
    lengths: NDArray[np.int64]
    returns: Floats
    action_spec: ActionSpec

    def __post_init__(self) -> None:
        names = ("observations", "actions", "rewards", "rows", "episodes", "steps", "lengths", "returns")
        counts = {name: len(getattr(self, name)) for name in names}
        if len(set(counts.values())) > 1:
            raise ValueError(f"Transitions of unequal length: {counts}.")

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True, kw_only=True)
class EpisodeSummaries:
    """What is known of the E episodes of a data set.

    Args:
        returns: Shape ``[E]``, undiscounted.
        lengths: Shape ``[E]``, in steps.
        terminated: Shape ``[E]``, bool: ended in a terminal state.
        truncated: Shape ``[E]``, bool: cut by a time limit. The last episode of a file may be neither: its end is
            missing.
    """

    returns: Floats
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
