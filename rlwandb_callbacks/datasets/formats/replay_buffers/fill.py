"""How far the arrays of a buffer are written, by its position and its fill level, and whether the rows agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.columns import Flags, Rows
from rlwandb_callbacks.datasets.formats.field_names import NEXT_OBSERVATIONS, REQUIRED
from rlwandb_callbacks.datasets.formats.memory import as_array
from rlwandb_callbacks.datasets.formats.records import is_mapping
from rlwandb_callbacks.datasets.formats.replay_buffers.names import COUNTS, FULL, find_number
from rlwandb_callbacks.datasets.unwritten_rows import MIN_RUN
from rlwandb_callbacks.errors import DatasetError

_MAX_COMPARED = 1_000


@dataclass(frozen=True, kw_only=True)
class Fill:
    """How far a buffer is written.

    Args:
        head: The row that is written next.
        is_full: Whether all rows were written; else those before ``head`` were.
        warning: A sentence if rows that were not written hold numbers; else empty.
    """

    head: int
    is_full: bool
    warning: str = ""


def find_fill(attributes: Mapping[str, Any], arrays: Mapping[str, Any], fields: Mapping[str, str]) -> Fill | None:
    """Returns how far a buffer is written; None if its numbers are not a position and a fill level.

    Ordinary data may have numbers of the same names: the size of a maze, or the index of a task. A fill level alone
    counts if the rows behind it are empty.

    Args:
        attributes: Attributes of the buffer.
        arrays: Those that are columns.
        fields: Name of the array of each field.

    Raises:
        DatasetError: If position and fill level contradict each other or the arrays.
    """
    head, full, count = (find_number(attributes, names) for names in (None, FULL, COUNTS))
    if count is None and (full is None or head is None):
        return None
    rows = StoredRows(arrays, fields)
    if full is not None and head is not None:
        _require_inside(head, rows.capacity)
        return Fill(head=head[1], is_full=True) if full[1] else rows.fill_before(head, full)
    if count is None or not 0 <= count[1] <= max(rows.capacity, rows.steps):
        return None
    is_full = count[1] in (rows.capacity, rows.steps)
    if head is None:
        return Fill(head=count[1], is_full=False) if not is_full and count[1] and rows.are_empty(count[1]) else None
    if is_full:
        _require_inside(head, rows.capacity)
        if head[1] and head[1] <= rows.capacity - MIN_RUN and rows.are_empty(head[1]):  # the count is the capacity
            return Fill(head=head[1], is_full=False)
        return None if rows.go_on_at(head[1]) else Fill(head=head[1], is_full=True)
    if count[1] == head[1]:
        return rows.fill_before(head, count)
    if rows.are_empty(max(0, count[1], head[1])):
        raise DatasetError(
            f"{head[0]} is {head[1]} and {count[0]} is {count[1]}, in arrays of {rows.capacity} rows. Of a buffer "
            "that is not full both are equal, so that the order of its rows is not known. Save the rows in the order "
            "in which they were written, and leave both numbers out."
        )
    return None


def _require_inside(head: tuple[str, int], capacity: int) -> None:
    if not 0 <= head[1] <= capacity:
        raise DatasetError(
            f"{head[0]} is {head[1]}, and its arrays have {capacity} rows; allowed is 0 to {capacity}, the row that is "
            "written next."
        )


class StoredRows:
    """All rows of a buffer, whether they were written or not.

    Args:
        arrays: Arrays of the buffer by name.
        fields: Name of the array of each field.
    """

    def __init__(self, arrays: Mapping[str, Any], fields: Mapping[str, str]) -> None:
        self._required = [arrays[fields[field]] for field in REQUIRED]
        self._marks = [arrays[fields[field]] for field in ("terminals", "timeouts", "dones") if field in fields]
        self._after = next((arrays[name] for name in NEXT_OBSERVATIONS if name in arrays), None)
        rewards = self._required[-1]
        shape = () if is_mapping(rewards) else as_array(rewards, "rewards").shape
        self.capacity = shape[0] if shape else 0
        self.steps = int(np.prod(shape, dtype=np.int64))

    def are_empty(self, low: int) -> bool:
        """Returns whether observations, actions and rewards are 0 or NaN from a row on, by some of the rows."""
        if low >= self.capacity:
            return False
        wanted = np.unique(np.linspace(low, self.capacity - 1, _MAX_COMPARED, dtype=np.int64))
        return all(_is_empty(value, wanted) for value in reversed(self._required))

    def fill_before(self, head: tuple[str, int], other: tuple[str, int]) -> Fill:
        """Returns that rows are written up to a position, with a warning if those behind it are not empty."""
        behind = self.capacity - head[1]
        if not head[1] or behind < 1 or self.are_empty(head[1]):
            return Fill(head=head[1], is_full=False)
        warning = (
            f"{behind:,} of {self.capacity:,} rows were left out, although they hold numbers other than 0: {head[0]} "
            f"is {head[1]} and {other[0]} is {bool(other[1]) if other[0] in FULL else other[1]}, so that they count as "
            f"not written. If these are no position and fill level, leave {head[0]} out."
        )
        return Fill(head=head[1], is_full=False, warning=warning)

    def go_on_at(self, head: int) -> bool:
        """Returns whether the step before a row leads to it, so that it cannot be the oldest row of a ring."""
        observations = self._required[0]
        if self._after is None or is_mapping(observations) or is_mapping(self._after) or not 0 < head < self.capacity:
            return False
        states, after = as_array(observations, "observations"), as_array(self._after, "next observations")
        if states.shape != after.shape or (after[head - 1] != states[head]).any():
            return False
        is_end = any(as_array(mark, "marks")[head - 1].any() for mark in self._marks)
        return not is_end and _occurs_once(states, head)  # else the newest step may lead to the oldest by chance


def _is_empty(value: Any, rows: Rows) -> bool:
    if is_mapping(value):
        return all(_is_empty(value[key], rows) for key in tuple(value.keys()))
    array = as_array(value, "rows")
    if len(array) <= int(rows[-1]):
        return False
    return not np.nan_to_num(array[rows]).any()


def _occurs_once(states: np.ndarray[Any, Any], row: int) -> bool:
    same: Flags = (states == states[row]).reshape(len(states), -1).all(axis=1)
    return int(np.count_nonzero(same)) == 1
