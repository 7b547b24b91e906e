"""Transitions of offline data, and the episodes that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.core.episode import Floats


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """A sample of K transitions, in the order of the data set.

    Args:
        observations: Observations in which the actions were taken, shape ``[K, ...]``; a dict observation is one
            vector.
        actions: Integers of shape ``[K]`` for discrete actions, floats of shape ``[K, D]`` for others.
        rewards: Rewards, shape ``[K]``, in the environment's unit.
        rows: Ascending indices into the whole data set, shape ``[K]``.
        episodes: Index of each row's episode, from 0, shape ``[K]``.
        steps: Step of each row in its episode, from 0, shape ``[K]``.
        lengths: Length of each row's episode in steps, shape ``[K]``.
        returns: Undiscounted return of each row's whole episode, shape ``[K]``.
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
            raise ValueError(f"The arrays of Transitions have unequal lengths: {counts}.")

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True, kw_only=True)
class EpisodeSummaries:
    """The E episodes of a data set.

    Args:
        returns: Undiscounted returns, shape ``[E]``.
        lengths: Lengths in steps, shape ``[E]``.
        terminated: Whether each episode reached a terminal state, shape ``[E]``.
        truncated: Whether each episode was cut by a time limit, shape ``[E]``. The last episode may be neither if
            the file ends before it.
    """

    returns: Floats
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
