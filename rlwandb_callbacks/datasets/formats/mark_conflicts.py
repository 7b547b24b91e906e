"""Finds marks whose values are no marks, or that contradict the more usual marks of the same data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Flags

# Marks that may be left out, from the most reliable to the least.
OPTIONAL = ("dones", "continues", "ids", "ends", "lengths", "start_rows", "starts", "step_types", "steps")
# Names of marks of rows that are added to terminals and timeouts whatever those say.
_ADDED = frozenset(("episode_terminals", "episode_ends", "episode_starts", "is_first"))


def counts_steps(numbers: NDArray[np.generic]) -> bool:
    """Returns whether numbers, one per row, count the steps of episodes: they rise, except where they are 0."""
    rises = np.greater(numbers[1:], numbers[:-1])
    return bool((rises | (numbers[1:] == 0)).all() and (len(numbers) == 1 or (numbers != 0).any()))


def contradicts(name: str, ends: Flags, known: Flags, *, is_by_row: bool, is_complete: bool) -> bool:
    """Returns whether a mark says something else than more usual ones.

    Args:
        name: Key of the mark.
        ends: Shape ``[N]``: the last rows of episodes according to it.
        known: Shape ``[N]``: the last rows of episodes according to more usual marks.
        is_by_row: Whether it holds one number per row, rather than one per episode.
        is_complete: Whether the more usual marks include those of time limits, so that there are no other ends.
    """
    if not known.any() or (is_by_row and name in _ADDED):
        return False
    adds = bool((ends & ~known)[:-1].any())
    lacks = bool((known & ~ends)[:-1].any())
    return adds and (lacks or is_complete)


def ids_contradict(ends: Flags, known: Flags, count_ids: Callable[[], int]) -> bool:
    """Returns whether ids, one per row, are none of episodes, as other marks show.

    Ids may also tell the rows of several environments apart: then ids change where no mark is, and marks stand where
    ids do not change. They are no ids of episodes if nearly every row has its own, or if, besides both of these
    differences, an id comes back later.

    Args:
        ends: Shape ``[N]``: the rows before a change of ids.
        known: Shape ``[N]``: the last rows of episodes according to other marks.
        count_ids: Returns how many different ids there are.
    """
    changes = ends[:-1]
    adds, lacks = (changes & ~known[:-1]).any(), (known[:-1] & ~changes).any()
    if not known.any() or not adds:
        return False
    are_of_rows = np.count_nonzero(changes) * 2 > len(changes) and np.count_nonzero(known) * 2 <= len(changes)
    return bool(are_of_rows or (lacks and np.count_nonzero(changes) + 1 > count_ids()))
