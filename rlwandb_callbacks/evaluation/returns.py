"""Episode returns as numbers and as a distribution."""

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
    """Mean of the middle half of the samples (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice").

    A quarter of the samples is trimmed at either end; where a quarter is no whole number, the border samples count in
    part, so that the result is continuous in the number of samples.

    Args:
        samples: Shape ``[..., N]``, N ≥ 1; the last axis is averaged.

    Returns:
        Shape ``[...]``.

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
    """Percentile-bootstrap interval of the interquartile mean (Efron 1979).

    Args:
        samples: Shape ``[N]``, N ≥ 1.
        draws: How many resamples, ≥ 1.
        confidence: RankResult that the interval covers, in (0, 1).
        seed: Of the generator that is used here alone.

    Returns:
        Lower and upper bound, in the unit of the samples.
    """
    rng = np.random.default_rng(seed)
    resampled = samples[rng.integers(len(samples), size=(draws, len(samples)))]
    low, high = np.quantile(interquartile_mean(resampled), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def summarize(episodes: Sequence[Episode], *, gamma: float) -> dict[str, float]:
    """The numbers of an evaluation, without a prefix.

    Args:
        episodes: At least one.
        gamma: Discount factor in [0, 1] of ``return_discounted_mean``.

    Returns:
        ``return_mean``, ``_std``, ``_min``, ``_max``, ``_median``, ``_p25``, ``_p75``, ``_iqm``, ``_iqm_low``,
        ``_iqm_high`` (95 % bootstrap interval), ``_discounted_mean``, ``length_mean``, ``episodes_count`` and, where
        the environment tells it, ``success_rate`` in [0, 1]; ``return_mean_<agent>`` where several agents play.

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
    outcomes = [episode.success for episode in episodes if episode.success is not None]
    summary |= {"success_rate": float(np.mean(outcomes))} if outcomes else {}
    agents = dict.fromkeys(agent for episode in episodes for agent in episode.agent_returns)
    by_agent = {
        agent: [episode.agent_returns[agent] for episode in episodes if agent in episode.agent_returns]
        for agent in agents
    }
    return summary | {f"return_mean_{agent}": float(np.mean(told)) for agent, told in by_agent.items()}


def episode_table(episodes: Sequence[Episode], *, gamma: float) -> Table:
    """One row per episode, in the order in which they were seeded."""
    rows = [
        (
            index,
            episode.seed,
            episode.total_return,
            episode.discounted_return(gamma),
            episode.length,
            episode.ending,
            episode.success,
        )
        for index, episode in enumerate(episodes)
    ]
    return Table(EPISODE_COLUMNS, rows)
