"""Finds rows of a data set that were never written, such as the rest of a preallocated buffer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Column, Flags, block_rows, row_bytes, spans

MIN_RUN = 8  # fewer empty rows at the end may be steps
MIN_CONSTANT_TAIL = 10
_MAX_COMPARED = 1_000
_MAX_READ_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class RowChoice:
    """The rows of a data set that count.

    Args:
        kept: Shape ``[N]``: whether each row counts; None if all do.
        warnings: What was left out and what looks wrong, a sentence each.
    """

    kept: Flags | None = None
    warnings: tuple[str, ...] = ()


def choose_rows(
    observations: Column, others: Sequence[Column], *, last: Flags, invalid: Flags, ids: Column | None = None
) -> RowChoice:
    """Leaves out rows that were never written, and looks for a constant end.

    Empty rows, whose columns are all 0, or all 0 and NaN, were never written if they are the end of the data, at least
    ``MIN_RUN`` of them, or if they fill up each episode, behind its marked end, or each part of the data to one common
    length. All other empty rows are kept: an agent may rest where all numbers are 0. They also show that the rows at
    the end may be such steps.

    Args:
        observations: Shape ``[N, ...]``.
        others: Actions, rewards and marks, each with one row per step.
        last: Shape ``[N]``: whether the row is marked as the last of its episode.
        invalid: Shape ``[N]``: rows that the data set itself declares to hold no transition.
        ids: Ids of episodes, one per row, if there are any.
    """
    unwritten, kept_empty = _find_unwritten(observations, others, last, ids)
    kept = ~(unwritten | invalid)
    if not kept.any():
        return RowChoice()
    warnings = []
    if count := np.count_nonzero(invalid & ~unwritten):
        warnings.append(f"{count:,} of {len(last):,} rows are not valid, as the data set says, and were left out.")
    if count := np.count_nonzero(unwritten):
        rows, were = ("rows", "were") if count > 1 else ("row", "was")
        warnings.append(
            f"{count:,} of {len(last):,} rows {were} never written, as after the end of a preallocated buffer: all "
            f"their numbers are 0 or NaN. The {rows} {were} left out."
        )
    if kept_empty:
        warnings.append(
            f"{kept_empty:,} of {len(last):,} rows hold only 0, many in a row. They count as steps. If they fill up "
            "shorter episodes, or the buffers of several environments, leave them out, or save valids beside them: 0 "
            "for these rows, else 1."
        )
    end = int(np.flatnonzero(kept)[-1]) + 1
    if tail := _constant_tail(observations, others, end):
        warnings.append(
            f"The last {tail:,} of {end:,} rows are equal. If they are the rest of a buffer that was not full, their "
            "steps, episodes and returns are wrong: save only the rows that were written."
        )
    return RowChoice(kept=None if kept.all() else kept, warnings=tuple(warnings))


def _find_unwritten(
    observations: Column, others: Sequence[Column], last: Flags, ids: Column | None
) -> tuple[Flags, int]:
    """Returns which rows were never written, and how many empty rows at ends of episodes look like padding."""
    count = observations.shape[0]
    none: Flags = np.zeros(count, dtype=bool)
    without_observations = np.ones(count, dtype=bool)
    for column in others:
        if not without_observations.any():
            return none, 0
        without_observations &= np.concatenate([_is_empty(block) for block in spans(column)])
    beside_ends = [
        high - 1
        for low, high in runs(without_observations)
        if low and (high == count or last[low - 1] or last[high - 1])
    ]
    if not beside_ends or _are_empty(observations, np.zeros(1, dtype=np.int64)).any():
        return none, 0
    if not _are_empty(observations, _some(np.array(beside_ends))).any():
        return none, 0
    rows = np.flatnonzero(without_observations)
    rows = rows[-max(1, _MAX_READ_BYTES // row_bytes(observations)) :]
    empty = none.copy()
    empty[rows] = _are_empty(observations, rows)
    if not empty.any() or _occurs_elsewhere(observations, without_observations):
        return none, 0
    if _is_padding(empty, last) or (ids is None and _are_ends_of_blocks(empty, last)):
        return empty, 0
    (low, high), *before = list(runs(empty))[::-1]
    is_end = high == count and high - low >= MIN_RUN
    if is_end and not before and not _are_empty(observations, np.array([low - 1])).any() and not _go_on(ids, low):
        return empty, 0
    inside = [high - low for low, high in runs(empty) if high < count and (last[high - 1] or high - low >= MIN_RUN)]
    return none, sum(inside) if sum(inside) >= MIN_RUN else 0


def _is_padding(empty: Flags, last: Flags) -> bool:
    """Returns whether all empty rows fill up episodes, behind their marked ends, to one common length."""
    padding = list(runs(empty))
    length = int(np.gcd.reduce([len(last), *(high for _, high in padding)]))
    if len(last) // length < 2 or not all(last[low - 1] for low, _ in padding):
        return False
    blocks, ends = empty.reshape(-1, length), last.reshape(-1, length)
    has_end = ends.any(axis=1)
    behind = np.cumsum(ends, axis=1) - ends > 0  # behind the first end
    return bool((blocks == behind)[has_end].all() and not blocks[~has_end].any())


def _are_ends_of_blocks(empty: Flags, last: Flags) -> bool:
    """Returns whether all empty rows are the ends of blocks of one length, and no mark says that they are steps.

    Such are the buffers of several environments, one behind the other, that were not full.
    """
    tails = list(runs(empty))
    length, rest = divmod(len(empty), len(tails))
    return (
        len(tails) > 1
        and not rest
        and all(high == length * (block + 1) for block, (_, high) in enumerate(tails))
        and all(high - low >= MIN_RUN and not last[low:high].any() for low, high in tails)
    )


def _go_on(ids: Column | None, low: int) -> bool:
    """Returns whether the rows from ``low`` carry the id, other than 0, of the episode before them."""
    if ids is None:
        return False
    before, first = ids.span(low - 1, low + 1).reshape(-1)
    return bool(before == first and (ids.dtype.kind in "SU" or first != 0))


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns at most ``_MAX_COMPARED`` of the rows, evenly spaced, with the first and the last."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(_MAX_COMPARED, len(rows)), dtype=np.int64))]


def _occurs_elsewhere(observations: Column, empty: Flags) -> bool:
    """Returns whether an empty observation is one of those at which something happens.

    Looks at some rows, and at those beside rows of zeros, where an agent would begin or end its rest.
    """
    edges = np.flatnonzero(empty[1:] != empty[:-1])
    beside = np.unique(np.concatenate([edges, edges + 1]))
    rows = np.union1d(_some(np.flatnonzero(~empty)), _some(beside[~empty[beside]]))
    return bool(len(rows) and _are_empty(observations, rows).any())


def _constant_tail(observations: Column, others: Sequence[Column], end: int) -> int:
    """Returns the number of rows before ``end`` that equal the last of them; 0 if they are few, or all."""
    start = end - MIN_CONSTANT_TAIL
    if start < 0 or any(_first_equal(column, start, end) > start for column in (*others, observations)):
        return 0
    start = 0
    for column in others:
        start = _first_equal(column, start, end)
    affordable = max(MIN_CONSTANT_TAIL, _MAX_READ_BYTES // row_bytes(observations))
    start = _first_equal(observations, max(start, end - affordable), end)
    return end - start if start else 0


def _first_equal(column: Column, low: int, high: int) -> int:
    """Returns the first row from which all rows up to ``high`` equal the last of them."""
    wanted = column.span(high - 1, high)
    first = begin = low
    for block in spans(column, low, high):
        same = (block == wanted) | (_is_nan(block) & _is_nan(wanted))
        other = np.flatnonzero(~same.reshape(len(block), -1).all(axis=1))
        first = begin + int(other[-1]) + 1 if len(other) else first
        begin += len(block)
    return first


def _are_empty(column: Column, rows: NDArray[np.int64]) -> Flags:
    """Returns which of the rows, in ascending order, are empty."""
    step = block_rows(column)
    parts = [_is_empty(column.read(rows[low : low + step])) for low in range(0, len(rows), step)]
    return np.concatenate([np.zeros(0, dtype=bool), *parts])


def _is_empty(block: NDArray[np.generic]) -> Flags:
    """Returns which rows hold only 0 and NaN."""
    empty = (block == 0) | _is_nan(block)
    return np.asarray(empty.reshape(len(block), -1).all(axis=1), dtype=bool)


def _is_nan(block: NDArray[np.generic]) -> Flags:
    return np.isnan(block) if block.dtype.kind == "f" else np.zeros(block.shape, dtype=bool)


def runs(flags: Flags) -> Iterator[tuple[int, int]]:
    """Yields the ranges of consecutive true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
