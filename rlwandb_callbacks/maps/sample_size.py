"""How many transitions fit a time budget."""

from __future__ import annotations

ENOUGH_ROWS = 10_000
FEWEST_ROWS = 500
# Seconds for both maps and all pictures on one slow core: a fixed part, and for each thousand rows. openTSNE and
# scikit-learn took 14 and 78 s for two maps of 10,000 × 17 numbers.
COSTS = {"opentsne": (6.0, 2.0), "sklearn": (6.0, 8.0), "pca": (5.0, 0.3)}


def fitting_rows(total: int, *, method: str, engine: str, max_seconds: float) -> int:
    """How many rows to draw from a data set.

    Ten thousand show what a hundred thousand show; fewer are drawn where these would take longer than allowed.

    Args:
        total: Rows of the data set.
        method: ``tsne`` or ``pca``.
        engine: ``opentsne`` or ``sklearn``.
        max_seconds: Of the whole map.

    Example:
        >>> fitting_rows(10**6, method="tsne", engine="opentsne", max_seconds=60)
        10000
        >>> fitting_rows(10**6, method="tsne", engine="sklearn", max_seconds=60)
        6750
    """
    fixed, per_thousand = COSTS["pca" if method == "pca" else engine]
    affordable = int(1_000 * (max_seconds - fixed) / per_thousand)
    return min(total, max(FEWEST_ROWS, min(ENOUGH_ROWS, affordable)))
