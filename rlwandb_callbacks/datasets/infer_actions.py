"""Infers what a column of stored actions holds: indices, one-hot rows, or vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec, ContinuousActions, DiscreteActions

MAX_DISCRETE = 1024  # a larger range of integers is more likely a quantity than a set of actions

Blocks: TypeAlias = Callable[[], Iterable[NDArray[np.generic]]]


@dataclass(frozen=True, kw_only=True)
class ActionDecoder:
    """Turns stored actions into the actions of :class:`~rlwandb_callbacks.core.transitions.Transitions`.

    Args:
        spec: Names or bounds of the actions.
        one_hot: Whether each stored action is a one-hot row.
    """

    spec: ActionSpec
    one_hot: bool = False

    def decode(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        """Returns shape ``[K]``, ``int64``, for discrete actions; shape ``[K, D]``, floats, for others."""
        rows = stored.reshape(len(stored), -1)
        if self.one_hot:
            return np.asarray(np.argmax(rows, axis=1), dtype=np.int64)
        if isinstance(self.spec, DiscreteActions):
            return rows[:, 0].astype(np.int64)
        return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def infer_actions(shape: tuple[int, ...], blocks: Blocks, declared: ActionSpec | None = None) -> ActionDecoder:
    """Infers how the actions of a data set are stored.

    Integers in a column of one are discrete actions, and so are floats that are all whole, not negative and not all
    zero; rows of D > 1 numbers with a single one and zeros otherwise are one-hot. All others are vectors, without
    bounds unless ``declared`` has some.

    Args:
        shape: Shape of the whole column, ``[N, ...]``.
        blocks: Yields the column in blocks; only as many as are needed to decide are read.
        declared: The action space that the file declares.

    Example:
        >>> rows = np.array([[0, 0, 1], [1, 0, 0]])
        >>> decoder = infer_actions(rows.shape, lambda: [rows])
        >>> decoder.decode(rows), decoder.spec.names
        (array([2, 0]), ('0', '1', '2'))
    """
    width = math.prod(shape[1:])
    if width == 1 and not isinstance(declared, ContinuousActions):
        bounds = _whole_bounds(blocks())
        if bounds is not None:
            return ActionDecoder(spec=_discrete(*bounds, declared))
    if len(shape) == 2 and width > 1 and _all_one_hot(blocks()):
        return ActionDecoder(spec=_discrete(0, width - 1, declared), one_hot=True)
    if isinstance(declared, ContinuousActions) and declared.low.size == width:
        return ActionDecoder(spec=ContinuousActions(declared.low.reshape(-1), declared.high.reshape(-1)))
    return ActionDecoder(spec=ContinuousActions(np.full(width, -np.inf), np.full(width, np.inf)))


def _discrete(low: int, high: int, declared: ActionSpec | None) -> DiscreteActions:
    if isinstance(declared, DiscreteActions):
        low, high = min(low, declared.first), max(high, declared.first + len(declared.names) - 1)
    elif 0 <= low < MAX_DISCRETE:
        low = 0
    return DiscreteActions(tuple(str(action) for action in range(low, high + 1)), first=low)


def _whole_bounds(blocks: Iterable[NDArray[np.generic]]) -> tuple[int, int] | None:
    """Returns the smallest and largest value if all are whole numbers that may be actions, else None."""
    low, high, floats = math.inf, -math.inf, False
    for block in blocks:
        if block.size == 0:
            continue
        if block.dtype.kind == "f":
            floats = True
            values = block.astype(np.float64)
            if not np.isfinite(values).all() or (values != np.floor(values)).any():
                return None
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        if high - low >= MAX_DISCRETE or (floats and low < 0):
            return None
    if not math.isfinite(low) or (floats and high < 1):
        return None
    return int(low), int(high)


def _all_one_hot(blocks: Iterable[NDArray[np.generic]]) -> bool:
    for block in blocks:
        if not ((block == 0) | (block == 1)).all() or (np.count_nonzero(block, axis=1) != 1).any():
            return False
    return True
