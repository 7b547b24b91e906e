"""Summary statistics of episode returns, and the table of episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.values import Table

BOOTSTRAP_DRAWS = 2_000
CONFIDENCE = 0.95
EPISODE_COLUMNS = ("episode", "seed", "return", "discounted_return", "length", "ended", "success")


def interquartile_mean(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Averages the middle half of samples (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice").

    A quarter of the samples is trimmed at each end; if a quarter is not an integer, the border samples have fractional
    weights, so that the trimmed weight is exactly a quarter. The last axis is averaged; it must not be empty.

    Example:
        >>> float(interquartile_mean(np.array([0.0, 1.0, 3.0, 100.0])))
        2.0
    """
    count = samples.shape[-1]
    position = np.arange(count, dtype=np.float64)
    weights = np.clip(np.minimum(position + 1, 0.75 * count) - np.maximum(position, 0.25 * count), 0.0, 1.0)
    return np.asarray(np.average(np.sort(samples, axis=-1), axis=-1, weights=weights), dtype=np.float64)


def bootstrap_interval(
    samples: NDArray[np.float64], *, draws: int = BOOTSTRAP_DRAWS, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Computes the percentile-bootstrap interval of the interquartile mean (Efron 1979) from ``draws`` resamples."""
    rng = np.random.default_rng(seed)
    resampled = samples[rng.integers(len(samples), size=(draws, len(samples)))]
    low, high = np.quantile(interquartile_mean(resampled), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def summarize(episodes: Sequence[Episode], *, gamma: float) -> dict[str, float]:
    """Computes the numbers of an evaluation of at least one episode, by names without a prefix.

    Returns:
        ``return_mean``, ``_std``, ``_min``, ``_max``, ``_median``, ``_p25``, ``_p75``, ``_iqm``, ``_iqm_low``,
        ``_iqm_high`` (95 % bootstrap interval), ``_discounted_mean``, ``length_mean``, ``episodes_count``;
        ``success_rate`` in [0, 1], the share of episodes whose last step was a success, and ``success_any_rate``, that
        of episodes with any such step, if the environment reports success; ``return_mean_<agent>`` for several agents.

    Example:
        >>> episode = Episode(actions=np.zeros(2), rewards=np.ones(2), terminated=True)
        >>> summarize([episode], gamma=1.0)["return_iqm"]
        2.0
    """
    returns = np.array([episode.total_return for episode in episodes], dtype=np.float64)
    p25, median, p75 = np.quantile(returns, [0.25, 0.5, 0.75])
    iqm_low, iqm_high = bootstrap_interval(returns)
    summary = {
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "return_median": float(median),
        "return_p25": float(p25),
        "return_p75": float(p75),
        "return_iqm": float(interquartile_mean(returns)),
        "return_iqm_low": iqm_low,
        "return_iqm_high": iqm_high,
        "return_discounted_mean": float(np.mean([episode.discounted_return(gamma) for episode in episodes])),
        "length_mean": float(np.mean([episode.length for episode in episodes])),
        "episodes_count": float(len(episodes)),
    }
    reported = {
        "success_rate": [episode.success for episode in episodes if episode.success is not None],
        "success_any_rate": [episode.success_any for episode in episodes if episode.success_any is not None],
    }
    summary |= {name: float(np.mean(successes)) for name, successes in reported.items() if successes}
    for agent in dict.fromkeys(agent for episode in episodes for agent in episode.agent_returns):
        known = [episode.agent_returns[agent] for episode in episodes if agent in episode.agent_returns]
        summary[f"return_mean_{agent}"] = float(np.mean(known))
    return summary


def episode_table(episodes: Sequence[Episode], *, gamma: float) -> Table:
    """Returns a table with one row per episode."""
    rows = [
        (index, each.seed, each.total_return, each.discounted_return(gamma), each.length, each.ending, each.success)
        for index, each in enumerate(episodes)
    ]
    return Table(EPISODE_COLUMNS, rows)
