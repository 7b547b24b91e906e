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
        Shape ``[T]``. For a continuous action the differential entropy that its distribution tells; where it tells
        none, that of a Gaussian with its mean and std, summed over the action's dimensions, above which no distribution
        with these can lie. For an action of several choices, which are drawn independently, the sum of their entropies.

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
    if scores.entropy is not None:
        return scores.entropy
    with np.errstate(divide="ignore"):
        per_dimension = 0.5 * np.log(2 * np.pi * np.e * scores.std**2)
    return np.asarray(per_dimension.reshape(len(per_dimension), -1).sum(axis=1))


def mean_entropy(episodes: Sequence[Episode]) -> float | None:
    """Mean entropy over all steps of all episodes, in nats; None where the policy gives no distribution."""
    per_episode = [entropy(episode.scores) for episode in episodes if episode.scores is not None]
    known = [steps for steps in per_episode if steps is not None and steps.size]
    return float(np.concatenate(known).mean()) if known else None


def chosen_q(episode: Episode, *, first: int | Sequence[int] = 0) -> NDArray[np.float64] | None:
    """Q(s, a) of the action that was taken at each step.

    Args:
        episode: With ``chosen_q``, or with q-values of finite actions.
        first: The smallest action (``Discrete.start``), or one number per choice of an action that consists of several.

    Returns:
        Shape ``[T]``, the mean over the choices where there are several; None where the policy gives no q-values, or
        none that belong to the actions.

    Example:
        >>> scores = QValues(np.array([[1.0, 9.0], [9.0, 3.0]]))
        >>> chosen_q(Episode(actions=np.array([0, 1]), rewards=np.zeros(2), terminated=True, scores=scores))
        array([1., 3.])
    """
    if episode.chosen_q is not None:
        return np.asarray(episode.chosen_q, dtype=np.float64)
    groups = [group.values for group in groups_of(episode.scores) if isinstance(group, QValues)]
    if not groups or episode.actions.size != episode.length * len(groups):
        return None
    indices = np.asarray(episode.actions, dtype=np.int64).reshape(episode.length, len(groups)) - np.asarray(first)
    if not all(map(_belong, groups, indices.T)):
        return None
    taken = [np.take_along_axis(q, index[:, None], axis=1)[:, 0] for q, index in zip(groups, indices.T, strict=True)]
    return np.asarray(np.mean(taken, axis=0), dtype=np.float64)


def _belong(q_values: NDArray[np.float64], indices: NDArray[np.int64]) -> bool:
    return q_values.ndim == 2 and bool(np.all((indices >= 0) & (indices < q_values.shape[1])))


def mean_chosen_q(episodes: Sequence[Episode], *, first: int | Sequence[int] = 0) -> float | None:
    """Mean of Q(s, a) over all steps of all episodes; None where the policy gives no q-values.

    Args:
        episodes: Of one environment.
        first: The smallest action (``Discrete.start``), or one number per choice of an action that consists of several.
    """
    per_episode = [chosen_q(episode, first=first) for episode in episodes]
    known = [steps for steps in per_episode if steps is not None and steps.size]
    return float(np.concatenate(known).mean()) if known else None
