r"""Errors of a critic: its predictions against the discounted returns that followed.

With :math:`\hat{v}_t` the prediction at step t, Q(s_t, a_t) or V(s_t), and
:math:`G_t = \sum_{k=t}^{T-1} \gamma^{k-t} r_k` the discounted Monte-Carlo return of the same episode, the bias is the
mean of :math:`\hat{v}_t - G_t` over the steps, and the absolute error the mean of :math:`|\hat{v}_t - G_t|`. A positive
bias is overestimation, which Fujimoto et al. 2018 ("Addressing function approximation error in actor-critic methods")
measure in the same way.

The return of an episode that was cut (truncated by a time limit, ours or the environment's) is unknown beyond the cut.
With the critic's last prediction in its place, the critic would be compared with itself. Instead, a step is judged only
if the unknown part has little weight: :math:`\gamma^{L-t} \le` ``MAX_UNKNOWN_WEIGHT`` with L the step limit. With a
discount factor of 0.99, these are the steps up to 201 of episodes with a limit of 500, and none with one of 200. The
unknown part adds at most that weight times the value of the state at the cut to the error.

The same steps of all episodes are judged, whether they were cut or not. The later steps of those that terminated are
known, too, but are a selection: from the same states, other episodes go on and are cut. An exact critic, which predicts
the mean of both, would seem to overestimate positive rewards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from rlwandb_callbacks.core.episode import Episode, Floats
from rlwandb_callbacks.policies.scores import chosen_q

MAX_UNKNOWN_WEIGHT = 0.05


@dataclass(frozen=True)
class ValueErrors:
    """Predictions and the discounted returns that followed, for the N steps that can be judged; all finite.

    Example:
        >>> errors = ValueErrors(np.array([3.0, 1.0]), np.array([1.0, 2.0]), steps=4, quantity="V(s)")
        >>> errors.bias, errors.absolute_error, errors.judged_fraction
        (0.5, 1.5, 0.5)
    """

    predictions: Floats
    returns: Floats
    steps: int  # all, ≥ N, including those that cannot be judged
    quantity: str  # what is predicted: "Q(s, a)" or "V(s)"

    @property
    def bias(self) -> float:
        """Mean of prediction minus return; a step must be judged."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float((self.predictions - self.returns).mean())

    @property
    def absolute_error(self) -> float:
        """Mean absolute difference of prediction and return; a step must be judged."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.abs(self.predictions - self.returns).mean())

    @property
    def judged_fraction(self) -> float:
        """Fraction of all steps that can be judged, in [0, 1]."""
        return len(self.predictions) / self.steps if self.steps else 0.0

    def numbers(self) -> dict[str, float]:
        """Returns ``q/judged_share``, and ``q/bias`` and ``q/abs_error`` if a step can be judged."""
        errors = {"q/bias": self.bias, "q/abs_error": self.absolute_error} if len(self.predictions) else {}
        return {**errors, "q/judged_share": self.judged_fraction}


def value_errors(
    episodes: Sequence[Episode], *, gamma: float, first: int | Sequence[int] = 0, limit: int | None = None
) -> ValueErrors | None:
    """Compares the predictions of a critic with the returns that followed; those that are not finite are left out.

    Args:
        episodes: At least one episode.
        gamma: Discount factor in [0, 1] that the critic was trained with.
        first: Smallest action (``Discrete.start``), or one number per choice of an action that consists of several.
        limit: Steps after which episodes are cut, ≥ 1; None if only episodes that were cut show it.

    Returns:
        None if the policy returns neither q-values nor V(s).

    Example:
        >>> exact = Episode(actions=np.zeros(2), rewards=np.ones(2), terminated=True, values=np.array([1.5, 1.0]))
        >>> value_errors([exact], gamma=0.5).bias
        0.0
    """
    predictions, returns, quantities = [], [], set()
    num_judged = num_judged_steps(episodes, gamma=gamma, limit=limit)
    for episode in episodes:
        predicted, quantity = _predictions(episode, first)
        if predicted is not None:
            discounted = discounted_returns(episode.rewards, gamma)
            is_judged = np.isfinite(predicted) & np.isfinite(discounted)
            is_judged[num_judged:] = False
            predictions.append(predicted[is_judged])
            returns.append(discounted[is_judged])
            quantities.add(quantity)
    if not predictions:
        return None
    steps, quantity = sum(episode.length for episode in episodes), " or ".join(sorted(quantities))
    return ValueErrors(np.concatenate(predictions), np.concatenate(returns), steps, quantity)


def discounted_returns(rewards: Floats, gamma: float) -> Floats:
    """Computes the discounted sum of the rewards from each step on.

    Example:
        >>> discounted_returns(np.array([1.0, 2.0, 4.0]), 0.5)
        array([3., 4., 4.])
    """
    if gamma == 0:  # 0 times infinity would be NaN
        return np.array(rewards, dtype=np.float64)
    backwards = list(accumulate(rewards[::-1].tolist(), lambda later, reward: reward + gamma * later))
    return np.array(backwards[::-1], dtype=np.float64)


def num_judged_steps(episodes: Sequence[Episode], *, gamma: float, limit: int | None = None) -> int:
    """Returns how many steps from the start of each episode can be judged: the same number for all of them.

    If an episode was cut before the limit, its length is the limit: all steps that are judged have a known return.

    Example:
        >>> ended = Episode(actions=np.zeros(9), rewards=np.zeros(9), terminated=True)
        >>> num_judged_steps([ended], gamma=0.5, limit=10), num_judged_steps([ended], gamma=0.5)
        (6, 9)
    """
    cut = first_cut(episodes, limit)
    longest = max(episode.length for episode in episodes)
    return longest if cut is None else int(max(0, min(longest, cut - horizon(gamma) + 1)))


def first_cut(episodes: Sequence[Episode], limit: int | None) -> int | None:
    """Returns the number of steps after which the first episode was or would have been cut; None if nothing cuts."""
    cuts = [episode.length for episode in episodes if episode.is_cut]
    return min(cuts if limit is None else [*cuts, limit], default=None)


def horizon(gamma: float) -> float:
    """Returns the number of steps, ≥ 1, from which on rewards have at most the weight ``MAX_UNKNOWN_WEIGHT``.

    Example:
        >>> horizon(0.99), horizon(0.0), horizon(1.0)
        (299, 1, inf)
    """
    if not 0 < gamma < 1:
        return math.inf if gamma else 1
    steps = max(1, math.ceil(math.log(MAX_UNKNOWN_WEIGHT) / math.log(gamma)))
    return steps if gamma**steps <= MAX_UNKNOWN_WEIGHT else steps + 1  # logarithms are rounded


def _predictions(episode: Episode, first: int | Sequence[int]) -> tuple[Floats | None, str]:
    if episode.agent_returns:  # a critic may predict the return of one agent, and the rewards are sums over all agents
        return None, ""
    q = chosen_q(episode, first=first)
    if q is not None:
        return q, "Q(s, a)"
    values = None if episode.values is None else np.asarray(episode.values, dtype=np.float64)
    return values, "V(s)"
