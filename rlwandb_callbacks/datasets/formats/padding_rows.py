"""Finds rows that hold no step, only the observation after the last step of an episode.

Minari writes all columns of an Arrow or Parquet file in one length, that of the observations: in its last row the
action and the reward are 0, and no end is marked. Where files are joined, each of these rows looks like the first step
of the next episode.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Column, Flags, spans

_MINARI_NAMES = {"terminals": "terminations", "timeouts": "truncations"}
_ROWS_AT_ONCE = 64


def find_padding(
    ends: Flags, observations: Column, actions: Column, rewards: Column, names: dict[str, str]
) -> Flags | None:
    """Returns which rows follow the end of an episode and hold no step; None if there are none.

    A row of zeros may also be the first step of an episode, as with a policy that always begins with action 0. All ends
    must be followed by one, the last one by nothing else; or, where the data are a part of more, nothing else may look
    like them. They are first steps if the first row of the data is such a row, too, with the same observation; and,
    where the names are not Minari's, if it is one at all, or if all their observations are the same.

    Args:
        ends: Shape ``[N]``: rows that are marked as terminal or cut off.
        observations: Shape ``[N, ...]``.
        actions: Shape ``[N, ...]``.
        rewards: Shape ``[N]`` or ``[N, 1]``.
        names: Key of each field.
    """
    if not {"terminals", "timeouts"} <= set(names):
        return None
    count = len(ends)
    after = np.flatnonzero(ends) + 1
    after = after[after < count]
    if not len(after) or ends[after].any() or not (_is_zero(rewards, after) and _is_zero(actions, after)):
        return None
    is_minari = all(names[field] == name for field, name in _MINARI_NAMES.items())
    if _are_first_steps(after, observations, actions, rewards, is_minari=is_minari):
        return None
    padding = np.zeros(count, dtype=bool)
    padding[after] = True
    if after[-1] == count - 1:
        return padding if is_minari or len(after) > 1 else None
    is_rare = is_minari and len(after) > 1 and not (_zeros(rewards) & _zeros(actions) & ~padding).any()
    return padding if is_rare else None


def _are_first_steps(
    after: NDArray[np.int64], observations: Column, actions: Column, rewards: Column, *, is_minari: bool
) -> bool:
    first = np.zeros(1, dtype=np.int64)
    begins_alike = _is_zero(rewards, first) and _is_zero(actions, first)
    if is_minari:
        return begins_alike and _are_equal(observations, after, first)
    return begins_alike or (len(after) > 1 and _are_equal(observations, after, after[:1]))


def _are_equal(column: Column, rows: NDArray[np.int64], one: NDArray[np.int64]) -> bool:
    wanted = column.read(one)
    parts = np.array_split(rows, max(1, len(rows) // _ROWS_AT_ONCE))
    return all(bool((column.read(part) == wanted).all()) for part in parts)


def padding_warning(count: int, total: int) -> str:
    """Returns that rows were left out."""
    rows, were = ("rows", "were") if count > 1 else ("row", "was")
    return (
        f"{count:,} of {total:,} rows {were} left out: the {rows} after the end of an "
        "episode without action, reward and marks (all 0), which Minari's Arrow and Parquet files have beside the last "
        "observation."
    )


def _is_zero(column: Column, rows: NDArray[np.int64]) -> bool:
    first = rows[:1]  # mostly tells enough
    return not column.read(first).any() and not column.read(rows).any()


def _zeros(column: Column) -> Flags:
    return np.concatenate([~block.reshape(len(block), -1).any(axis=1) for block in spans(column)])
