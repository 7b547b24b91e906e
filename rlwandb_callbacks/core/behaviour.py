"""What a policy did and thought over an evaluation, in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode, PolicyScores, Probabilities, QValues


def entropy(scores: PolicyScores) -> NDArray[np.float64] | None:
    """Entropy of the policy at each step, in nats; None for q-values, which are no distribution.

    Args:
        scores: Leading axis T.

    Returns:
        Shape ``[T]``. For a Gaussian the differential entropy, summed over the action's dimensions.

    Example:
        >>> entropy(Probabilities(np.array([[0.5, 0.5]]))).round(3)
        array([0.693])
    """
    if isinstance(scores, QValues):
        return None
    if isinstance(scores, Probabilities):
        p = scores.values
        return np.asarray(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1))
    with np.errstate(divide="ignore"):
        return np.asarray(np.sum(0.5 * np.log(2 * np.pi * np.e * scores.std**2), axis=-1))


def mean_entropy(episodes: Sequence[Episode]) -> float | None:
    """Mean entropy over all steps of all episodes, in nats; None where the policy gives no distribution."""
    per_episode = [entropy(episode.scores) for episode in episodes if episode.scores is not None]
    known = [steps for steps in per_episode if steps is not None and steps.size]
    return float(np.concatenate(known).mean()) if known else None


def mean_chosen_q(episodes: Sequence[Episode], *, first: int = 0) -> float | None:
    """Mean of Q(s, a) of the actions that were taken; None where the policy gives no q-values.

    Args:
        episodes: Of a discrete environment.
        first: The smallest action (``Discrete.start``).
    """
    chosen = [
        np.take_along_axis(episode.scores.values, _index(episode.actions, first), axis=-1)
        for episode in episodes
        if isinstance(episode.scores, QValues) and episode.length
    ]
    return float(np.concatenate(chosen).mean()) if chosen else None


def _index(actions: NDArray[np.generic], first: int) -> NDArray[np.int64]:
    return np.asarray(actions, dtype=np.int64).reshape(-1, 1) - first
