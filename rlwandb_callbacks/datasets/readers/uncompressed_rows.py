"""Rows that lie in a file as they are in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Rows

_GAP_BYTES = 8 * 2**10
_STRETCH_BYTES = 2**20


class StoredRows:
    """An array that is stored uncompressed, in chunks that may follow each other in any order.

    Args:
        path: The file.
        starts: Shape ``[C]``: where in the file each chunk begins.
        chunk: Shape of a chunk; its first entry is how many rows it has.
        dtype: Of the entries.
    """

    def __init__(self, path: str, starts: NDArray[np.int64], chunk: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path, self._dtype = path, dtype
        self._starts, self._chunk_rows, self._shape = starts, chunk[0], chunk[1:]

    def read(self, rows: Rows) -> NDArray[np.generic]:
        """Reads ascending rows: shape ``[K, ...]``."""
        out = np.empty((len(rows), math.prod(self._shape) * self._dtype.itemsize), dtype=np.uint8)
        with Path(self._path).open("rb", buffering=0) as file:
            if len(rows) and int(rows[-1]) - int(rows[0]) == len(rows) - 1:
                self._read_range(file, int(rows[0]), out)
            else:
                places = self._starts[rows // self._chunk_rows] + rows % self._chunk_rows * out.shape[1]
                for low, high in _stretches(places, out.shape[1]):
                    _read_stretch(file, places[low:high], out[low:high])
        return out.reshape(-1).view(self._dtype).reshape(len(rows), *self._shape)

    def _read_range(self, file: Any, first: int, out: NDArray[np.uint8]) -> None:
        """Reads consecutive rows chunk by chunk, with no look at each of them."""
        done, (count, size) = 0, out.shape
        while done < count:
            chunk, row = divmod(first + done, self._chunk_rows)
            high = min(count, done + self._chunk_rows - row)
            file.seek(int(self._starts[chunk]) + row * size)
            _fill(file, out[done:high])
            done = high


def _stretches(places: NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Indices ``low, high`` of rows that are near each other in the file, and cheaper to read in one go."""
    steps = np.diff(places)
    apart = (steps < size) | (steps > size + _GAP_BYTES) | (np.diff(places // _STRETCH_BYTES) != 0)
    yield from itertools.pairwise([0, *(np.flatnonzero(apart) + 1).tolist(), len(places)])


def _read_stretch(file: Any, places: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    count, size = out.shape
    length = int(places[-1] - places[0]) + size
    file.seek(int(places[0]))
    if length == count * size:
        _fill(file, out)
        return
    stretch = np.empty(length, dtype=np.uint8)
    _fill(file, stretch)
    windows: NDArray[np.uint8] = np.ndarray((length - size + 1, size), np.uint8, stretch, strides=(1, 1))
    out[:] = windows[places - places[0]]


def _fill(file: Any, array: NDArray[np.uint8]) -> None:
    target = memoryview(array.reshape(-1))  # type: ignore[arg-type]  # arrays are buffers from Python 3.12 on
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])
        if not count:
            raise OSError("the file ends before its data do")
        done += count
