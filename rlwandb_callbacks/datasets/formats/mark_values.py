"""Tests of the values of marks, one per row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Flags


def is_zero(values: NDArray[np.generic]) -> Flags:
    """Tests for 0; other numbers count as not 0."""
    return np.asarray(values == 0, dtype=bool)


def is_one(values: NDArray[np.generic]) -> Flags:
    """Tests a mark; other numbers than 0 and 1 are a ValueError."""
    if values.dtype.kind != "b" and not ((values == 0) | (values == 1)).all():
        invalid = values[(values != 0) & (values != 1)][0]
        raise ValueError(
            f"{invalid}; allowed are 0 and 1, or false and true, where 1 marks an episode's last transition (its "
            "first in episode_starts)."
        )
    return values.astype(bool)


def is_no_one(values: NDArray[np.generic]) -> Flags:
    """Tests for 0; other numbers than 0 and 1 are a ValueError."""
    return ~is_one(values)


def _has_type(values: NDArray[np.generic], wanted: int) -> Flags:
    is_known = np.isin(values, (0, 1, 2))
    if not is_known.all():
        raise ValueError(
            f"{values[~is_known][0]}; allowed are 0 (first), 1 (middle) and 2 (last), as in dm_env.StepType."
        )
    return np.asarray(values == wanted, dtype=bool)


def is_first_type(values: NDArray[np.generic]) -> Flags:
    """Tests a step type for the first one; unknown types are a ValueError."""
    return _has_type(values, 0)


def is_last_type(values: NDArray[np.generic]) -> Flags:
    """Tests a step type for the last one; unknown types are a ValueError."""
    return _has_type(values, 2)
