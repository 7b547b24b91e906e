"""Which episodes are worth a video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def extremes(returns: Sequence[float]) -> dict[str, int]:
    """Picks the best, median and worst episode, each another one.

    With one episode only the best is named, with two the best and the worst. For an even number the lower median is
    taken, as the median has to be an episode that was played. A return that is NaN counts as worse than any number;
    equal returns keep their order.

    Args:
        returns: One undiscounted return per episode, at least one.

    Returns:
        Index into ``returns`` by rank name, in the order best, median, worst.

    Raises:
        ValueError: If there is no episode.

    Example:
        >>> extremes([10.0, 30.0, 20.0, 40.0])
        {'best': 3, 'median': 2, 'worst': 0}
    """
    if len(returns) == 0:
        raise ValueError("There is no episode to choose from: returns is empty.")
    comparable = np.asarray(returns, dtype=np.float64)
    is_number = ~np.isnan(comparable)
    order = np.lexsort((np.where(is_number, comparable, 0.0), is_number))
    picked = {"best": int(order[-1])}
    if len(order) >= 3:
        picked["median"] = int(order[(len(order) - 1) // 2])
    if len(order) >= 2:
        picked["worst"] = int(order[0])
    return picked
