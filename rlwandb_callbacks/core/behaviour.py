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


def chosen_q(episode: Episode, *, first: int = 0) -> NDArray[np.float64] | None:
    """Q(s, a) of the action that was taken at each step.

    Args:
        episode: With ``chosen_q``, or with q-values of discrete actions.
        first: The smallest action (``Discrete.start``).

    Returns:
        Shape ``[T]``; None where the policy gives no q-values, or none that belong to the actions.

    Example:
        >>> scores = QValues(np.array([[1.0, 9.0], [9.0, 3.0]]))
        >>> chosen_q(Episode(actions=np.array([0, 1]), rewards=np.zeros(2), terminated=True, scores=scores))
        array([1., 3.])
    """
    if episode.chosen_q is not None:
        return np.asarray(episode.chosen_q, dtype=np.float64)
    if not isinstance(episode.scores, QValues) or episode.actions.size != episode.length:
        return None
    q_values = episode.scores.values
    index = np.asarray(episode.actions, dtype=np.int64).reshape(-1, 1) - first
    if q_values.ndim != 2 or not np.all((index >= 0) & (index < q_values.shape[1])):
        return None
    return np.take_along_axis(q_values, index, axis=1)[:, 0]


def mean_chosen_q(episodes: Sequence[Episode], *, first: int = 0) -> float | None:
    """Mean of Q(s, a) over all steps of all episodes; None where the policy gives no q-values.

    Args:
        episodes: Of one environment.
        first: The smallest action (``Discrete.start``).
    """
    per_episode = [chosen_q(episode, first=first) for episode in episodes]
    known = [steps for steps in per_episode if steps is not None and steps.size]
    return float(np.concatenate(known).mean()) if known else None
