"""Interquartile mean, and 95 % confidence intervals that cover the true value for few episodes and equal returns too.

``python -m benchmarks.coverage`` measures how often they do.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from rlwandb_callbacks.core.episode import Floats

CONFIDENCE = 0.95
QUANTILE = (1 + CONFIDENCE) / 2
TRIMMED = 0.25  # share of the samples that the interquartile mean cuts at each end
MIN_SAMPLES = 4  # with fewer, nothing is cut, and the spread is unknown
RESAMPLES = 1_000


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def interquartile_mean(samples: Floats) -> float:
    """Averages the middle half of at least one sample (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264).

    A quarter of the samples, rounded down, is cut at each end, and the others are averaged, as by ``aggregate_iqm`` of
    rliable and ``scipy.stats.trim_mean(samples, 0.25)``: of three samples or fewer nothing is cut. An infinite sample
    that is cut has no effect. NaN if a sample is NaN.

    Example:
        >>> interquartile_mean(np.array([0.0, 1.0, 3.0, -np.inf])), interquartile_mean(np.array([0.0, 0.0, 9.0]))
        (0.5, 3.0)
    """
    ordered = np.sort(samples)
    if np.isnan(ordered[-1]):  # NaN is sorted to the end, where it would be cut
        return math.nan
    cut = _num_cut(len(ordered))
    with np.errstate(over="ignore", invalid="ignore"):  # the mean of -inf and inf
        return float(ordered[cut : len(ordered) - cut].mean())


def iqm_interval(samples: Floats) -> Interval | None:
    """Computes a 95 % interval of the interquartile mean of the distribution that the samples are drawn from.

    It is the t interval of the trimmed mean (Tukey and McLaughlin 1963). This interval is too narrow if samples are
    equal, such as returns at the limit of a task; then it is widened to contain the percentile-bootstrap interval.

    If all samples that are averaged are equal, or only two values occur, the interval holds all interquartile means of
    distributions in which the smaller values, and the larger ones, are as frequent as Wilson's interval of their share
    allows. Twelve equal samples thus have an interval of width 0, as at most a quarter of the distribution differs from
    them; the interval of fewer equal samples is unknown.

    Returns:
        None with fewer than four samples, if a sample is NaN, or if a limit is unknown or infinite.

    Example:
        >>> iqm_interval(np.array([1.0, 2.0, 3.0])), iqm_interval(np.full(8, 37.0)), iqm_interval(np.full(12, 37.0))
        (None, None, Interval(low=37.0, high=37.0))
    """
    ordered = np.sort(samples)
    if len(ordered) < MIN_SAMPLES or np.isnan(ordered[-1]):
        return None
    smallest_kept, largest_kept = _kept_limits(ordered)
    values = np.unique(ordered)
    with np.errstate(over="ignore", invalid="ignore"):
        if len(values) == 2:
            interval = _interval_from_shares(ordered, *values.tolist())
        elif smallest_kept == largest_kept:
            interval = _interval_from_shares(ordered, smallest_kept, largest_kept)
        else:
            interval = _trimmed_t_interval(ordered)
            if len(values) < len(ordered):
                interval = _hull(interval, _bootstrap_interval(ordered))
    return interval if all(map(math.isfinite, interval)) else None


def wilson_interval(successes: int, count: int) -> Interval:
    """Computes the 95 % interval of a probability from ``successes`` in ``count`` ≥ 1 trials (Wilson 1927).

    Example:
        >>> low, high = wilson_interval(8, 8)
        >>> round(low, 2), high
        (0.68, 1.0)
    """
    z2 = NormalDist().inv_cdf(QUANTILE) ** 2
    rate = successes / count
    center = rate + z2 / (2 * count)
    margin = math.sqrt(z2 * (rate * (1 - rate) / count + z2 / (4 * count**2)))
    low, high = ((center + sign * margin) / (1 + z2 / count) for sign in (-1, 1))
    return Interval(low if successes else 0.0, high if successes < count else 1.0)  # without rounding errors


def _num_cut(count: int) -> int:
    return int(TRIMMED * count)


def _kept_limits(ordered: Floats) -> tuple[float, float]:
    cut = _num_cut(len(ordered))
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def _trimmed_t_interval(ordered: Floats) -> Interval:
    """Computes the interval from the winsorized standard deviation (divisor n - 1) of at least four samples."""
    from scipy.special import stdtrit  # a quarter of a second

    count = len(ordered)
    kept = count - 2 * _num_cut(count)
    deviation = np.clip(ordered, *_kept_limits(ordered)).std(ddof=1)
    standard_error = deviation * math.sqrt((count - 1) / (kept * (kept - 1)))
    center, margin = interquartile_mean(ordered), float(stdtrit(kept - 1, QUANTILE) * standard_error)
    return Interval(center - margin, center + margin)


def _bootstrap_interval(ordered: Floats) -> Interval:
    """Computes the percentile-bootstrap interval (Efron 1979); always the same for the same samples."""
    count, cut = len(ordered), _num_cut(len(ordered))
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    drawn.sort(axis=-1)  # of sorted samples: the smallest sample has the smallest index
    means = ordered[drawn[:, cut : count - cut]].mean(axis=-1)
    return Interval(*np.quantile(means, [1 - QUANTILE, QUANTILE]).tolist())


def _hull(a: Interval, b: Interval) -> Interval:
    return Interval(min(a.low, b.low), max(a.high, b.high))


def _interval_from_shares(ordered: Floats, low: float, high: float) -> Interval:
    """Computes the interval of samples of which none is between ``low`` and ``high``."""
    return Interval(_lowest_mean(ordered, high), -_lowest_mean(-ordered[::-1], -low))


def _lowest_mean(ordered: Floats, value: float) -> float:
    """Returns the interquartile mean if samples below ``value`` are as frequent as possible, and others equal to it."""
    below = ordered[ordered < value]
    share = wilson_interval(len(below), len(ordered)).high
    if share <= TRIMMED:  # they would be cut
        return value
    if below.size == 0:
        return -math.inf
    edges = np.append(np.linspace(0.0, share, len(below) + 1), 1.0)
    weights = np.diff(np.clip(edges, TRIMMED, 1 - TRIMMED))
    used = weights > 0  # the first of `below` may be infinite
    values = np.append(below, value)[used]
    return float(np.clip(np.average(values, weights=weights[used]), values[0], values[-1]))  # without rounding errors
