"""Ring buffers: which rows were written, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import ArrayColumn, Column, Flags, Rows
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.field_names import NEXT_OBSERVATIONS
from rlwandb_callbacks.datasets.formats.flat import FlatReader, Tree
from rlwandb_callbacks.datasets.formats.memory import as_array
from rlwandb_callbacks.datasets.formats.records import is_mapping
from rlwandb_callbacks.errors import DatasetError

_BLOCK_BYTES = 16 * 2**20
OVERWRITTEN = (
    "The buffer is full, so that older rows may have been overwritten: the first episode of each environment may lack "
    "its beginning."
)


@dataclass(frozen=True, kw_only=True)
class BufferContent:
    """Rows of a replay buffer, and the order in which they were written.

    Args:
        name: Name of the buffer in messages.
        tree: Columns of all stored rows by field: observations, actions, rewards, and marks of ends.
        order: Rows in the order in which they were written, one array of row numbers for each environment.
        warnings: What the reader of the data should know, a sentence each.
        has_next_observations: Whether next observations are stored, so that each row is a whole transition.
    """

    name: str
    tree: Tree
    order: Sequence[Rows]
    warnings: tuple[str, ...] = field(default=())
    has_next_observations: bool = False

    def reader(self) -> FlatReader:
        """Returns an open data set of the rows that were written, one environment after the other.

        Raises:
            DatasetError: If none was written, or columns are missing or do not fit together.
        """
        lengths = [len(rows) for rows in self.order if len(rows)]
        if not lengths:
            raise DatasetError(f"{self.name} has zero transitions: nothing was written to the buffer.")
        order = np.concatenate(self.order).astype(np.int64)
        tree = {key: _ordered(item, order) for key, item in self.tree.items()}
        if len(lengths) > 1:
            tree["episode_starts"] = ArrayColumn(_first_rows(lengths))
        keys = (*tree, *(NEXT_OBSERVATIONS[:1] * self.has_next_observations))
        return FlatReader(tree, self.name, keys=keys, warnings=self.warnings, may_be_unwritten=False)


def open_content(content: BufferContent) -> OfflineDataset:
    """Opens a buffer that is in memory."""
    return OfflineDataset(name=content.name, layout="memory", opener=partial(_open, content))


@contextmanager
def _open(content: BufferContent) -> Iterator[FlatReader]:
    yield content.reader()


def ring_rows(capacity: int, head: int, count: int) -> Rows:
    """Returns the rows of a ring from the oldest to the newest.

    Args:
        capacity: Number of rows.
        head: The row that is written next.
        count: Number of rows that hold data.

    Example:
        >>> ring_rows(5, head=2, count=5), ring_rows(5, head=2, count=2)
        (array([2, 3, 4, 0, 1]), array([0, 1]))
    """
    return (np.arange(head - count, head, dtype=np.int64)) % max(1, capacity)


def find_seam(observations: NDArray[Any], next_observations: NDArray[Any], ended: Flags) -> int | None:
    """Returns the oldest row of a ring that is full, by the only step that does not lead to the row after it.

    Args:
        observations: Shape ``[B, ...]``, or ``[B, E, ...]`` with environments.
        next_observations: The same shape.
        ended: Shape ``[B]``, or ``[B, E]``: whether an episode ended with the step.

    Returns:
        The oldest row; None if there is no such step or several: the newest row may be the end of an episode.

    Example:
        >>> states = np.array([[5.0], [6.0], [2.0], [3.0], [4.0]])
        >>> find_seam(states, states + 1, np.zeros(5, dtype=bool))
        2
    """
    count, breaks = len(observations), []
    step = max(1, _BLOCK_BYTES // max(1, observations[:1].nbytes))
    edges = [*range(0, count - 1, step), count - 1, count]
    for low, high in reversed([*pairwise(edges)]):  # first whether the last row leads to the first
        following = observations[:1] if high == count else observations[low + 1 : high + 1]
        follows = following == next_observations[low:high]
        goes_on = follows.reshape(*ended[low:high].shape, -1).all(axis=-1) | ended[low:high]
        breaks += (low + np.flatnonzero(~goes_on.reshape(high - low, -1).all(axis=1))).tolist()
        if len(breaks) > 1:
            return None
    return (breaks[0] + 1) % count if breaks else None


def columns_of(value: Any, name: str) -> Column | Tree:
    """Returns an array, a tensor, or a nested mapping of these as columns of all stored rows."""
    if is_mapping(value):
        return {str(key): columns_of(value[key], f"{name}/{key}") for key in tuple(value.keys())}
    return ArrayColumn(as_array(value, name))


def without_axis(value: Any, name: str) -> Column | Tree:
    """Returns arrays of shape ``[B, E, ...]`` as columns of ``B * E`` rows, environments alternating."""
    if is_mapping(value):
        return {str(key): without_axis(value[key], f"{name}/{key}") for key in tuple(value.keys())}
    array = as_array(value, name)
    if array.ndim < 2:
        raise DatasetError(f"{name} has shape {array.shape}; allowed is (rows, environments, …).")
    return ArrayColumn(array.reshape(-1, *array.shape[2:]))


class OrderedColumn:
    """A column in another order.

    Args:
        column: The whole column, ``[N, ...]``.
        order: The row of it that each row of this column is, ``[K]``.
    """

    def __init__(self, column: Column, order: Rows) -> None:
        self._column, self._order = column, order
        self.shape = (len(order), *column.shape[1:])
        self.dtype = column.dtype

    def __reduce__(self) -> Any:  # another process receives the rows that count, rather than the whole buffer
        return ArrayColumn, (self.span(0, len(self._order)),)

    def read(self, rows: Rows) -> NDArray[np.generic]:
        wanted = self._order[rows]
        ascending = np.argsort(wanted, kind="stable")
        out = np.empty((len(wanted), *self.shape[1:]), dtype=self.dtype)
        out[ascending] = self._column.read(wanted[ascending])
        return out

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        return self.read(np.arange(low, high, dtype=np.int64))


def _ordered(item: Column | Tree, order: Rows) -> Column | Tree:
    if isinstance(item, Mapping):
        return {key: _ordered(inner, order) for key, inner in item.items()}
    if not item.shape or (len(order) and item.shape[0] <= order.max()):
        return item  # of another length, which the reader of the columns reports
    return OrderedColumn(item, order)


def _first_rows(lengths: Sequence[int]) -> NDArray[np.bool_]:
    starts = np.zeros(sum(lengths), dtype=bool)
    starts[np.cumsum([0, *lengths[:-1]])] = True
    return starts
