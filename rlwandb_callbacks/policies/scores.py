"""Entropy and Q(s, a) of the actions in evaluation episodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode, Floats, Grouped, PolicyScores, Probabilities, QValues, groups_of


def entropy(scores: PolicyScores) -> Floats | None:
    """Returns the entropy of the policy at each step, shape ``[T]``, in nats; None for q-values, which have none.

    The entropies of independent categorical dimensions are summed. A continuous action has the differential entropy of
    its distribution, NaN where it is not known.
    """
    if isinstance(scores, QValues):
        return None
    if isinstance(scores, Grouped):
        parts = [part for group in scores.groups if (part := entropy(group)) is not None]
        return np.asarray(np.sum(parts, axis=0)) if parts else None
    if isinstance(scores, Probabilities):
        p = scores.values
        return np.asarray(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1))
    return gaussian_entropy(scores.std) if scores.entropy is None else scores.entropy


def gaussian_entropy(std: Floats) -> Floats:
    """Returns the entropy of Gaussians with standard deviations ``[T, ...]``, summed over the dimensions: ``[T]``.

    Example:
        >>> gaussian_entropy(np.ones((1, 2))).round(3)
        array([2.838])
    """
    with np.errstate(divide="ignore"):
        per_dimension = 0.5 * np.log(2 * np.pi * np.e * std**2)
    return np.asarray(per_dimension.reshape(len(per_dimension), -1).sum(axis=1))


def mean_entropy(episodes: Sequence[Episode]) -> float | None:
    """Returns the mean entropy over all steps of all episodes, in nats; None if the policy gives no distribution.

    Also None if the entropy of one step is not known: it may be unknown just where it is small, as of a squashed policy
    at its bounds, so that the mean over the other steps would be too large.
    """
    mean = _mean_over_steps(entropy(episode.scores) for episode in episodes if episode.scores is not None)
    return None if mean is None or math.isnan(mean) else mean


def chosen_q(episode: Episode, *, first: int | Sequence[int] = 0) -> Floats | None:
    """Returns Q(s, a) of each step, shape ``[T]``, the mean over the action's dimensions.

    ``first`` is the smallest action (``Discrete.start``), or one integer per dimension of a ``MultiDiscrete`` action.
    Returns None if the episode has no q-values, or they do not match its actions.

    Example:
        >>> scores = QValues(np.array([[1.0, 9.0], [9.0, 3.0]]))
        >>> chosen_q(Episode(actions=np.array([0, 1]), rewards=np.zeros(2), terminated=True, scores=scores))
        array([1., 3.])
    """
    if episode.chosen_q is not None:
        return np.asarray(episode.chosen_q, dtype=np.float64)
    q_values = [group.values for group in groups_of(episode.scores) if isinstance(group, QValues)]
    if not q_values or episode.actions.size != episode.length * len(q_values):
        return None
    indices = np.asarray(episode.actions, dtype=np.int64).reshape(episode.length, len(q_values)) - np.asarray(first)
    return q_of_indices(q_values, indices)


def q_of_indices(q_values: Sequence[Floats], indices: NDArray[np.int64]) -> Floats | None:
    """Returns the q-values at ``indices [T, dimensions]``, averaged over the dimensions: shape ``[T]``.

    ``q_values`` has the shape ``[T, options]`` per dimension. Returns None for other shapes, or if an index is out of
    range.
    """
    pairs = list(zip(q_values, indices.T, strict=True))
    if not all(q.ndim == 2 and np.all((index >= 0) & (index < q.shape[1])) for q, index in pairs):
        return None
    taken = [np.take_along_axis(q, index[:, None], axis=1)[:, 0] for q, index in pairs]
    return np.asarray(np.mean(taken, axis=0), dtype=np.float64)


def mean_chosen_q(episodes: Sequence[Episode], *, first: int | Sequence[int] = 0) -> float | None:
    """Returns the mean of :func:`chosen_q` over all steps of all episodes; None if the policy gives no q-values."""
    return _mean_over_steps(chosen_q(episode, first=first) for episode in episodes)


def _mean_over_steps(per_episode: Iterable[Floats | None]) -> float | None:
    known = [steps for steps in per_episode if steps is not None and steps.size]
    return float(np.concatenate(known).mean()) if known else None
