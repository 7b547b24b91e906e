"""Statistics of a data set of offline transitions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.core.histograms import count_actions, histogram
from rlwandb_callbacks.core.transitions import EpisodeSummaries, Transitions
from rlwandb_callbacks.core.values import Histogram, Scalar, Value


def dataset_statistics(episodes: EpisodeSummaries, sample: Transitions) -> dict[str, Value]:
    """Returns counts, spreads and distributions of a data set.

    Only finite returns, rewards and actions count, and quantities without a finite number are left out.

    Args:
        episodes: All episodes.
        sample: Some transitions, for the distributions of rewards and actions.

    Returns:
        ``dataset/episodes``, ``dataset/transitions``; ``_mean``, ``_std`` (divisor n, ``ddof=0``), ``_min`` and
        ``_max`` of ``dataset/return``, ``dataset/length`` and ``dataset/reward`` and their ``_distribution``;
        ``dataset/action_distribution`` for discrete actions, ``dataset/action_<d>_distribution`` per dimension for
        others; the fractions of episodes that are marked as terminated, ``dataset/terminated_share``, and as truncated,
        ``dataset/truncated_share``.
    """
    count = max(len(episodes.lengths), 1)
    values: dict[str, Value | None] = {
        "dataset/episodes": Scalar(float(len(episodes.lengths))),
        "dataset/transitions": Scalar(float(episodes.lengths.sum())),
        **_spread("dataset/return", episodes.returns),
        **_spread("dataset/length", episodes.lengths),
        **_spread("dataset/reward", sample.rewards),
        **_action_distributions(sample),
        "dataset/terminated_share": Scalar(np.count_nonzero(episodes.terminated) / count),
        "dataset/truncated_share": Scalar(np.count_nonzero(episodes.truncated) / count),
    }
    return {key: value for key, value in values.items() if value is not None}


def _spread(key: str, samples: NDArray[np.generic]) -> dict[str, Value | None]:
    values: Floats = np.asarray(samples, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return {}
    summary = {"mean": finite.mean(), "std": finite.std(), "min": finite.min(), "max": finite.max()}
    scalars: dict[str, Value | None] = {f"{key}_{name}": Scalar(float(value)) for name, value in summary.items()}
    return scalars | {f"{key}_distribution": histogram(finite)}


def _action_distributions(sample: Transitions) -> dict[str, Histogram | None]:
    spec = sample.action_spec
    if isinstance(spec, DiscreteActions):
        return {"dataset/action_distribution": count_actions(sample.actions, first=spec.first, n=len(spec.names))}
    columns = sample.actions.reshape(len(sample), -1)
    return {f"dataset/action_{index}_distribution": histogram(columns[:, index]) for index in range(columns.shape[1])}
