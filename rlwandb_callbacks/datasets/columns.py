"""Columns of a data set: one entry per transition, read in ranges or in scattered rows."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
BLOCK_BYTES = 4 * 2**20
_GAP_BYTES = 64 * 2**10  # reading so many bytes takes about as long as one more call
_NUMBERS = "biuf"


class Column(Protocol):
    """N entries of one shape and dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole column, ``(N, ...)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the entries; a real number or bool."""
        ...

    def read(self, rows: Rows) -> NDArray[np.generic]:
        """Reads the given rows, which ascend and differ: shape ``[K, ...]``."""
        ...

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        """Reads the rows from ``low`` up to, not including, ``high``: shape ``[high - low, ...]``."""
        ...


def row_bytes(column: Column) -> int:
    """Returns the size of one entry in bytes."""
    return max(1, math.prod(column.shape[1:]) * column.dtype.itemsize)


def block_rows(column: Column) -> int:
    """Returns how many rows make up a block of some megabytes."""
    return max(1, BLOCK_BYTES // row_bytes(column))


def spans(column: Column, first: int = 0, end: int | None = None) -> Iterator[NDArray[np.generic]]:
    """Reads the rows from ``first`` up to, not including, ``end``, by default all, in blocks of some megabytes."""
    end, step = column.shape[0] if end is None else end, block_rows(column)
    for low in range(first, end, step):
        yield column.span(low, min(low + step, end))


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Returns whether entries are real numbers or bools, rather than objects, text or records."""
    return dtype.kind in _NUMBERS


class ArrayColumn:
    """A column that is in memory.

    Args:
        array: Shape ``[N, ...]``.
    """

    def __init__(self, array: NDArray[np.generic]) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype = array.dtype

    def read(self, rows: Rows) -> NDArray[np.generic]:
        picked: NDArray[np.generic] = self._array[rows]
        return picked

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        return self._array[low:high]


class FileColumn(ABC):
    """A column in a file; scattered rows are picked from contiguous blocks of at most 4 MiB.

    Args:
        shape: Shape of the whole column, ``(N, ...)``.
        dtype: Dtype of the entries.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype

    @abstractmethod
    def span(self, low: int, high: int) -> NDArray[np.generic]:
        """Reads the rows from ``low`` up to, not including, ``high``: shape ``[high - low, ...]``."""

    def read(self, rows: Rows) -> NDArray[np.generic]:
        """Reads the given rows, which ascend and differ: shape ``[K, ...]``."""
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for first, end in _blocks(rows, row_bytes(self)):
            wanted = rows[first:end]
            low = int(wanted[0])
            out[first:end] = self.span(low, int(wanted[-1]) + 1)[wanted - low]
        return out


def _blocks(rows: Rows, size: int) -> Iterator[tuple[int, int]]:
    """Yields index ranges of rows, ``size`` bytes each, that are read in one block."""
    if len(rows):
        apart = np.diff(rows) * size > _GAP_BYTES
        apart |= np.diff(rows // max(1, BLOCK_BYTES // size)) != 0
        yield from itertools.pairwise([0, *(np.flatnonzero(apart) + 1).tolist(), len(rows)])


class JoinedColumn:
    """Columns of a dict or tuple, each flattened, side by side as one vector.

    Args:
        parts: Columns of the same length N.
    """

    def __init__(self, parts: Sequence[Column]) -> None:
        self._parts = parts
        self._widths = [math.prod(part.shape[1:]) for part in parts]
        self.shape = (parts[0].shape[0], sum(self._widths))
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def read(self, rows: Rows) -> NDArray[np.generic]:
        return self._join([part.read(rows) for part in self._parts])

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        return self._join([part.span(low, high) for part in self._parts])

    def _join(self, parts: list[NDArray[np.generic]]) -> NDArray[np.generic]:
        flat = [part.reshape(len(part), width) for part, width in zip(parts, self._widths, strict=True)]
        return np.concatenate(flat, axis=1, dtype=self.dtype)
