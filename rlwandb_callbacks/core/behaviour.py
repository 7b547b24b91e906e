"""What a policy did and thought over an evaluation, in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode, Grouped, PolicyScores, Probabilities, QValues, groups_of


def entropy(scores: PolicyScores) -> NDArray[np.float64] | None:
    """Entropy of the policy at each step, in nats; None for q-values, which are no distribution.

    Args:
        scores: Leading axis T.

    Returns:
        Shape ``[T]``. For a Gaussian the differential entropy, summed over the action's dimensions; for an action of
        several choices, which are drawn independently, the sum of their entropies.

    Example:
        >>> entropy(Probabilities(np.array([[0.5, 0.5]]))).round(3)
        array([0.693])
    """
    if isinstance(scores, QValues):
        return None
    if isinstance(scores, Grouped):
        parts = [part for group in scores.groups if (part := entropy(group)) is not None]
        return np.asarray(np.sum(parts, axis=0)) if parts else None
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


def mean_chosen_q(episodes: Sequence[Episode], *, first: int | Sequence[int] = 0) -> float | None:
    """Mean of Q(s, a) of the actions that were taken; None where the policy gives no q-values.

    Args:
        episodes: Of an environment with finite actions.
        first: The smallest action (``Discrete.start``), or one number per choice of an action that consists of several;
            the mean is then one over the choices too.
    """
    chosen = [_chosen_q(episode, first) for episode in episodes if episode.length]
    known = [values for values in chosen if values.size]
    return float(np.concatenate(known).mean()) if known else None


def _chosen_q(episode: Episode, first: int | Sequence[int]) -> NDArray[np.float64]:
    """Shape ``[T * choices]``; empty where there are no q-values."""
    groups = [group for group in groups_of(episode.scores) if isinstance(group, QValues)]
    if not groups:
        return np.empty(0)
    indices = np.asarray(episode.actions, dtype=np.int64).reshape(episode.length, -1) - np.asarray(first)
    taken = [
        np.take_along_axis(group.values, column[:, None], axis=-1)[:, 0]
        for group, column in zip(groups, indices.T, strict=True)
    ]
    return np.concatenate(taken)
