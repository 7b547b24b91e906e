"""Numbers of several processes as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def over_ranks(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Reduces the metrics of all ranks: the least of ``…_min``, the greatest of ``…_max``, else the mean.

    Args:
        shares: The numbers of each rank by name; a rank that lacks a name does not count for it.

    Example:
        >>> over_ranks([{"loss": 1.0, "q_value_max": 5.0}, {"loss": 3.0, "q_value_max": 2.0, "entropy": 0.5}])
        {'loss': 2.0, 'q_value_max': 5.0, 'entropy': 0.5}
    """
    if len(shares) == 1:
        return dict(shares[0])
    names = dict.fromkeys(name for share in shares for name in share)
    return {name: _reduced(name, [share[name] for share in shares if name in share]) for name in names}


def _reduced(name: str, numbers: Sequence[float]) -> float:
    if name.endswith("_min"):
        return float(np.min(numbers))
    if name.endswith("_max"):
        return float(np.max(numbers))
    return float(np.mean(numbers))
