"""Summary statistics of episode returns, and the table of episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlwandb_callbacks.core.episode import Episode, Floats
from rlwandb_callbacks.core.key_names import valid_name
from rlwandb_callbacks.core.values import Table
from rlwandb_callbacks.evaluation.intervals import interquartile_mean, iqm_interval, wilson_interval

EPISODE_COLUMNS = ("episode", "seed", "return", "discounted_return", "length", "ended", "success")

TASK_NUMBERS = (
    "return_mean",
    "return_std",
    "return_min",
    "return_max",
    "return_iqm",
    "score_mean",
    "length_mean",
    "success_rate",
    "episodes_count",
)


def summarize(episodes: Sequence[Episode], *, gamma: float) -> dict[str, float]:
    """Computes the numbers of an evaluation of at least one episode, by names without a prefix.

    A number is NaN only if a return is NaN, or if it is between -∞ and ∞ or a difference of equal infinities.

    Returns:
        ``return_mean``, ``_min``, ``_max``, ``_median``, ``_p25``, ``_p75`` (quantiles, between two returns by linear
        interpolation) and ``_discounted_mean``; ``return_std``, the standard deviation of these returns, whose divisor
        is their number n (``ddof=0``), as in Stable-Baselines3: 0 for one episode, and for few episodes less than that
        of all episodes; ``return_iqm``, the interquartile mean, and ``return_iqm_low`` and ``_high``, its 95 %
        interval, which needs at least four episodes, see :func:`iqm_interval`; ``length_mean``, ``episodes_count``;
        ``success_rate`` in [0, 1], the share of episodes whose last step was a success, and ``success_any_rate``, that
        of episodes with any such step, if the environment reports success, with ``_low`` and ``_high``, Wilson's 95 %
        interval; ``score_mean`` over the episodes whose ``score`` is known; ``return_mean_<agent>`` for several agents.

    Example:
        >>> episode = Episode(actions=np.zeros(2), rewards=np.ones(2), terminated=True)
        >>> summarize([episode], gamma=1.0)["return_iqm"]
        2.0
    """
    returns = np.array([episode.total_return for episode in episodes], dtype=np.float64)
    summary = _summarize_returns(returns)
    with np.errstate(over="ignore", invalid="ignore"):  # the mean of -inf and inf
        summary["return_discounted_mean"] = float(np.mean([episode.discounted_return(gamma) for episode in episodes]))
    summary["length_mean"] = float(np.mean([episode.length for episode in episodes]))
    summary["episodes_count"] = float(len(episodes))
    reported = {
        "success_rate": [episode.success for episode in episodes if episode.success is not None],
        "success_any_rate": [episode.success_any for episode in episodes if episode.success_any is not None],
    }
    for name, successes in reported.items():
        if successes:
            low, high = wilson_interval(sum(map(bool, successes)), len(successes))
            summary |= {name: float(np.mean(successes)), f"{name}_low": low, f"{name}_high": high}
    scores = [episode.score for episode in episodes if episode.score is not None]
    if scores:
        summary["score_mean"] = float(np.mean(scores))
    for agent in dict.fromkeys(agent for episode in episodes for agent in episode.agent_returns):
        known = [episode.agent_returns[agent] for episode in episodes if agent in episode.agent_returns]
        summary[f"return_mean_{agent}"] = float(np.mean(known))
    return summary


def summarize_tasks(episodes: Sequence[Episode], *, gamma: float) -> dict[str, float]:
    """Computes numbers of each task by names ``<task>/<name>``; nothing unless there are episodes of several tasks.

    The names are those of :func:`summarize` in ``TASK_NUMBERS``.
    """
    tasks = dict.fromkeys(episode.task for episode in episodes)
    if len(tasks) < 2:
        return {}
    numbers: dict[str, float] = {}
    for task in (task for task in tasks if task is not None):
        summary = summarize([episode for episode in episodes if episode.task == task], gamma=gamma)
        numbers |= {f"{valid_name(task)}/{name}": summary[name] for name in TASK_NUMBERS if name in summary}
    return numbers


def _summarize_returns(returns: Floats) -> dict[str, float]:
    with np.errstate(over="ignore", invalid="ignore"):  # the mean of -inf and inf
        mean = float(returns.mean())
    summary = {
        "return_mean": mean,
        "return_std": standard_deviation(returns),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "return_median": quantile(returns, 0.5),
        "return_p25": quantile(returns, 0.25),
        "return_p75": quantile(returns, 0.75),
        "return_iqm": interquartile_mean(returns),
    }
    interval = iqm_interval(returns)
    if interval is not None:
        summary |= {"return_iqm_low": interval.low, "return_iqm_high": interval.high}
    return summary


def standard_deviation(samples: Floats) -> float:
    """Computes the standard deviation of the samples themselves: the divisor is their number n (``ddof=0``).

    It is infinite if some samples are, unless all are the same infinity, which gives NaN as any NaN does.

    Example:
        >>> standard_deviation(np.array([1.0, 3.0])), standard_deviation(np.array([1.0, -np.inf]))
        (1.0, inf)
    """
    if np.isinf(samples).any() and not np.isnan(samples).any() and samples.min() < samples.max():
        return math.inf
    with np.errstate(invalid="ignore", over="ignore"):
        return float(samples.std())


def quantile(samples: Floats, fraction: float) -> float:
    """Computes a quantile as ``numpy.quantile`` does by default, but without its NaN beside infinite samples.

    NumPy multiplies the distance to the next larger sample by a weight that may be 0.

    Example:
        >>> quantile(np.array([0.0, 2.0, np.inf]), 0.5), quantile(np.array([-np.inf, -np.inf, 1.0, 2.0]), 0.5)
        (2.0, -inf)
    """
    ordered = np.sort(samples)
    if np.isnan(ordered[-1]):
        return math.nan
    if np.isfinite(ordered).all():
        return float(np.quantile(ordered, fraction))
    position = fraction * (len(ordered) - 1)
    lower, weight = int(position), position % 1
    if weight == 0 or ordered[lower] == ordered[lower + 1]:
        return float(ordered[lower])
    return float((1 - weight) * ordered[lower] + weight * ordered[lower + 1])  # NaN between -inf and inf


def episode_table(episodes: Sequence[Episode], *, gamma: float) -> Table:
    """Returns a table with one row per episode; scores and tasks are further columns if there are any."""
    rows: list[tuple[Any, ...]] = [
        (index, each.seed, each.total_return, each.discounted_return(gamma), each.length, each.ending, each.success)
        for index, each in enumerate(episodes)
    ]
    columns = list(EPISODE_COLUMNS)
    for name in ("score", "task"):
        values = [getattr(each, name) for each in episodes]
        if any(value is not None for value in values):
            columns.append(name)
            rows = [(*row, value) for row, value in zip(rows, values, strict=True)]
    return Table(tuple(columns), rows)
