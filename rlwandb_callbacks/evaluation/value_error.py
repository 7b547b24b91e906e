r"""How honest a critic is: what it predicted, against the discounted return that followed.

With :math:`\hat{v}_t` the prediction at step t, Q(s_t, a_t) or V(s_t), and
:math:`G_t = \sum_{k=t}^{T-1} \gamma^{k-t} r_k` the discounted Monte-Carlo return of the same episode, the bias is the
mean of :math:`\hat{v}_t - G_t` over the steps, and the absolute error the mean of :math:`|\hat{v}_t - G_t|`. A positive
bias is overestimation, which Fujimoto et al. 2018 ("Addressing function approximation error in actor-critic methods")
measure in the same way.

An episode that was cut (truncated by a time limit, ours or the environment's) has a return after the cut that nobody
saw. To put the critic's own last prediction in its place would let the critic judge itself. Instead only those steps
count for which the unseen part weighs little: :math:`\gamma^{T-t} \le` ``MAX_UNSEEN_WEIGHT``. With a discount factor of
0.99, these are the steps up to 201 of an episode cut at 500, and none of one cut at 200. What the unseen part adds to
the error is at most that weight times the value of the state at the cut. Of an episode that terminated, every step
counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode, Floats
from rlwandb_callbacks.policies.scores import chosen_q

MAX_UNSEEN_WEIGHT = 0.05


@dataclass(frozen=True)
class ValueErrors:
    """Predictions and the returns that followed, over the steps that can be judged.

    Args:
        predictions: Shape ``[N]``, in units of return, finite.
        returns: Shape ``[N]``: discounted, from the same steps on, finite.
        steps: Number of steps of all episodes, ≥ N, those included that cannot be judged.
        quantity: What was predicted: ``Q(s, a)`` or ``V(s)``.

    Example:
        >>> errors = ValueErrors(np.array([3.0, 1.0]), np.array([1.0, 2.0]), steps=4, quantity="V(s)")
        >>> errors.bias, errors.absolute_error, errors.share
        (0.5, 1.5, 0.5)
    """

    predictions: Floats
    returns: Floats
    steps: int
    quantity: str

    @property
    def bias(self) -> float:
        """Mean of prediction minus return; NaN where no step can be judged."""
        return self._mean(self._differences())

    @property
    def absolute_error(self) -> float:
        """Mean distance of prediction and return, ≥ 0; NaN where no step can be judged."""
        return self._mean(np.abs(self._differences()))

    @property
    def share(self) -> float:
        """Fraction of all steps that can be judged, in [0, 1]."""
        return len(self.predictions) / self.steps if self.steps else 0.0

    def numbers(self) -> dict[str, float]:
        """``q/bias`` and ``q/abs_error`` where a step can be judged, and ``q/judged_share``, which says how many."""
        found = {"q/bias": self.bias, "q/abs_error": self.absolute_error} if len(self.predictions) else {}
        return {**found, "q/judged_share": self.share}

    def _differences(self) -> Floats:
        with np.errstate(over="ignore"):
            return self.predictions - self.returns

    @staticmethod
    def _mean(samples: Floats) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            return float(samples.mean()) if samples.size else float("nan")


def value_errors(episodes: Sequence[Episode], *, gamma: float, first: int | Sequence[int] = 0) -> ValueErrors | None:
    """Compares what the critic predicted with what came.

    Args:
        episodes: At least one.
        gamma: Discount factor in [0, 1] that the critic was trained with.
        first: The smallest action (``Discrete.start``), or one number per choice of an action that consists of several.

    Returns:
        None where the policy gives neither q-values nor V(s). Predictions and returns that are not finite are left out.

    Example:
        >>> right = Episode(actions=np.zeros(2), rewards=np.ones(2), terminated=True, values=np.array([1.5, 1.0]))
        >>> value_errors([right], gamma=0.5).bias
        0.0
    """
    predicted = [_predictions(episode, first) for episode in episodes]
    known = [(episode, *found) for episode, found in zip(episodes, predicted, strict=True) if found is not None]
    if not known:
        return None
    predictions, returns = (
        np.concatenate(parts)
        for parts in zip(*(_judged(episode, guess, gamma) for episode, guess, _ in known), strict=True)
    )
    quantities = " or ".join(sorted({quantity for _, _, quantity in known}))
    return ValueErrors(predictions, returns, sum(episode.length for episode in episodes), quantities)


def discounted_returns(rewards: Floats, gamma: float) -> Floats:
    """Discounted sum of the rewards from each step on.

    Args:
        rewards: Shape ``[T]``.
        gamma: Discount factor in [0, 1].

    Returns:
        Shape ``[T]``.

    Example:
        >>> discounted_returns(np.array([1.0, 2.0, 4.0]), 0.5)
        array([3., 4., 4.])
    """
    backwards = list(accumulate(rewards[::-1].tolist(), lambda later, reward: reward + gamma * later))
    return np.array(backwards[::-1], dtype=np.float64)


def seen_enough(episode: Episode, gamma: float) -> NDArray[np.bool_]:
    """Tells from which steps on the discounted return is known but for a small rest.

    Returns:
        Shape ``[T]``: all true where the episode terminated.
    """
    left = np.arange(episode.length, 0, -1)
    return np.asarray(episode.terminated | (np.float64(gamma) ** left <= MAX_UNSEEN_WEIGHT))


def _predictions(episode: Episode, first: int | Sequence[int]) -> tuple[Floats, str] | None:
    if episode.agent_returns:  # each agent's critic may be about its own return, and these are of the team
        return None
    of_actions = chosen_q(episode, first=first)
    if of_actions is not None:
        return of_actions, "Q(s, a)"
    return None if episode.values is None else (np.asarray(episode.values, dtype=np.float64), "V(s)")


def _judged(episode: Episode, predictions: Floats, gamma: float) -> tuple[Floats, Floats]:
    returns = discounted_returns(episode.rewards, gamma)
    usable = seen_enough(episode, gamma) & np.isfinite(predictions) & np.isfinite(returns)
    return predictions[usable], returns[usable]
