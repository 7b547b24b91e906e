r"""Detects a fall of the mean return that chance alone rarely produces.

The best return so far is also the luckiest one, so an agent that does not change falls below it again and again.
Therefore the latest two evaluations are pooled and compared with the best two neighbors, pooled too, in units of the
standard error of the difference:

.. math:: \mathrm{SE}^2 = \frac{\max(v_1, v)}{n_1} + \frac{\max(v_2, v)}{n_2},

with :math:`n` the episodes of a pair, and :math:`v_1, v_2` the variances of their returns (``ddof=1``). None is taken
below :math:`v`, the larger of the median and the mean variance of all evaluations: few episodes may have equal returns.

The episodes of one evaluation may vary less than evaluations do, as those of a deterministic policy that starts in the
same state. The drops :math:`d` from each of :math:`k + 1` earlier evaluations to the next have the mean square

.. math:: \mathrm{SE}_d^2 = \frac{(1 + 8 / k) \sum d^2 + 4 \, (0.15 \, s)^2}{k + 4},

which replaces :math:`\mathrm{SE}^2` if it is more than twice as large. Few drops say little about their variance:
:math:`8 / k` allows for it as a quantile of Student's t does, and four assumed drops of 15 % of the scale :math:`s`
stand for those that have not been seen. The scale is the larger of the best mean's size and its gain over the worst.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any, NamedTuple

KEPT = 100  # latest evaluations that variances are taken from, so that a long training does not grow
MERGED_ROWS = 4  # rows without a standard deviation that count as one evaluation
MAX_VARIANCE_RATIO = 2.0  # of drops between evaluations and episodes of one; independent evaluations rarely exceed it
ASSUMED_DROPS, ASSUMED_DROP = 4, 0.15  # number, and size as a share of the scale of the returns
SMALL_SAMPLE = 8.0
USUAL_EVALUATIONS = 50  # number of evaluations up to which the limit does not grow


class Returns(NamedTuple):
    """Returns of the episodes of one evaluation.

    Args:
        mean: Their mean, finite.
        variance: Variance of a single return, with ``ddof=1``; NaN if unknown, as of a single episode.
        episodes: Number of episodes, ≥ 1.
    """

    mean: float
    variance: float
    episodes: float


class Fall(NamedTuple):
    """A fall that exceeds the limit.

    Args:
        latest: Mean return of the latest two evaluations.
        best: Mean return of the best two neighbors.
        standard_errors: Difference in standard errors; infinite if all returns before it were 0.
        limit: Number of standard errors that was exceeded.
    """

    latest: float
    best: float
    standard_errors: float
    limit: float


def read_returns(mean: float, std: float, count: float) -> Returns | None:
    """Reads the numbers of a row; NaN stands for a number that the row does not have.

    Args:
        mean: Mean return.
        std: Standard deviation of the returns with ``ddof=0``, as ``eval/return_std``.
        count: Number of episodes.

    Returns:
        None if the mean is not finite: such returns cannot be compared.

    Example:
        >>> read_returns(1.0, 1.0, 2.0), read_returns(1.0, 0.0, 1.0)
        (Returns(mean=1.0, variance=2.0, episodes=2.0), Returns(mean=1.0, variance=nan, episodes=1.0))
    """
    if not math.isfinite(mean):
        return None
    count = count if 1 <= count < math.inf else 1.0
    variance = squared(std) * count / (count - 1) if count > 1 else math.nan
    return Returns(mean, variance if math.isfinite(variance) else math.nan, count)


class ReturnHistory:
    """Mean returns so far, in bounded memory.

    Rows without a standard deviation (single episodes, episodes of the training) are merged, four into one evaluation,
    whose variance is that between the rows.

    Example:
        >>> history = ReturnHistory()
        >>> for mean in (500.0, 490.0, 510.0, 100.0, 90.0):
        ...     _ = history.add(Returns(mean, 400.0, 8))
        >>> history.fall(limit=4.0)
        Fall(latest=95.0, best=500.0, standard_errors=..., limit=4.0)
    """

    def __init__(self) -> None:
        self._total = 0
        self._kept: deque[Returns] = deque(maxlen=KEPT)
        self._best: tuple[Returns, Returns] | None = None  # the latest two are not compared with themselves
        self._merging: list[Returns] = []

    def add(self, returns: Returns) -> bool:
        """Adds a row, and returns whether an evaluation is complete with it."""
        if math.isnan(returns.variance):
            self._merging.append(returns)
            if len(self._merging) < MERGED_ROWS:
                return False
            returns, self._merging = merged(self._merging), []
        self._total += 1
        self._kept.append(returns)
        if len(self._kept) >= 4:
            earlier = self._kept[-4], self._kept[-3]
            if self._best is None or pooled(*earlier).mean > pooled(*self._best).mean:
                self._best = earlier
        return True

    def fall(self, *, limit: float) -> Fall | None:
        """Returns the fall of the latest two evaluations below the best two neighbors if it exceeds the limit.

        Args:
            limit: Standard errors of the difference, > 0. From 50 evaluations on it grows with the square root of the
                logarithm of their number, as the distance of the best of them from the worst does.
        """
        if self._best is None:
            return None
        latest, best = pooled(self._kept[-2], self._kept[-1]), pooled(*self._best)
        limit *= math.sqrt(math.log(max(self._total, USUAL_EVALUATIONS)) / math.log(USUAL_EVALUATIONS))
        error, difference = self._standard_error(latest, best), best.mean - latest.mean
        if not difference > limit * error:  # NaN is no fall
            return None
        return Fall(latest.mean, best.mean, difference / error if error else math.inf, limit)

    def _standard_error(self, latest: Returns, best: Returns) -> float:
        variances = [each.variance for each in self._kept]
        floor = max(median(variances), fmean(variances))
        of_episodes = sum(max(pair.variance, floor) / pair.episodes for pair in (latest, best))
        of_drops = mean_squared_drop([each.mean for each in self._kept][:-2], best.mean)
        return math.sqrt(of_drops if of_drops > MAX_VARIANCE_RATIO * of_episodes else of_episodes)

    def state(self) -> dict[str, Any]:
        """Returns plain numbers and lists of them, from which :meth:`restore` continues."""
        return {
            "total": self._total,
            "kept": [list(each) for each in self._kept],
            "best": [list(each) for each in self._best or ()],
            "merging": [list(each) for each in self._merging],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> ReturnHistory:
        """Continues from what :meth:`state` returned."""
        history = cls()
        history._total = int(state["total"])
        history._kept.extend(Returns(*each) for each in state["kept"])
        best = [Returns(*each) for each in state["best"]]
        history._best = (best[0], best[1]) if best else None
        history._merging = [Returns(*each) for each in state["merging"]]
        return history


def pooled(a: Returns, b: Returns) -> Returns:
    """Returns the mean and variance of all episodes of two evaluations.

    Example:
        >>> pooled(Returns(1.0, 0.0, 3), Returns(5.0, 0.0, 1))
        Returns(mean=2.0, variance=4.0, episodes=4)
    """
    count = a.episodes + b.episodes
    mean = (a.episodes * a.mean + b.episodes * b.mean) / count
    squares = sum((each.episodes - 1) * each.variance + each.episodes * squared(each.mean - mean) for each in (a, b))
    return Returns(mean, squares / (count - 1), count)


def merged(rows: Sequence[Returns]) -> Returns:
    """Merges at least two rows without a variance; the differences between them define that of a single return.

    Example:
        >>> merged([Returns(0.0, math.nan, 1), Returns(2.0, math.nan, 1)])
        Returns(mean=1.0, variance=2.0, episodes=2)
    """
    count = sum(each.episodes for each in rows)
    mean = sum(each.episodes * each.mean for each in rows) / count
    return Returns(mean, sum(each.episodes * squared(each.mean - mean) for each in rows) / (len(rows) - 1), count)


def mean_squared_drop(means: Sequence[float], best: float) -> float:
    """Estimates the squared standard error of the difference of two pairs from the drops between earlier evaluations.

    Half of the squared differences of independent evaluations are those of drops, so that their mean is the variance of
    one evaluation; an agent that improves has none.

    Args:
        means: Mean returns of at least two evaluations, without those that may have fallen.
        best: Mean return of the best two.

    Example:
        >>> round(mean_squared_drop([100.0, 100.0], 100.0))  # 4 · 15² / 5
        180
        >>> round(mean_squared_drop([100.0, 90.0, 100.0], 100.0))  # (5 · 10² + 4 · 15²) / 6
        233
    """
    drops = [squared(max(0.0, a - b)) for a, b in pairwise(means)]
    assumed = ASSUMED_DROPS * squared(ASSUMED_DROP * max(abs(best), best - min(means)))
    return (sum(drops) * (1 + SMALL_SAMPLE / len(drops)) + assumed) / (len(drops) + ASSUMED_DROPS)


def squared(number: float) -> float:
    """Returns the square, which is infinite if it is too large: ``**`` raises an error."""
    return number * number
