"""Rows that lie in a file as they are in memory."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Rows


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
        self._row_bytes = math.prod(self._shape) * dtype.itemsize

    def read(self, rows: Rows) -> NDArray[np.generic]:
        """Reads ascending rows: shape ``[K, ...]``."""
        out = np.empty((len(rows), *self._shape), dtype=self._dtype)
        size = self._row_bytes
        target = memoryview(out.reshape(-1).view(np.uint8))
        places = self._starts[rows // self._chunk_rows] + rows % self._chunk_rows * size
        edges = [0, *(np.flatnonzero(np.diff(places) != size) + 1).tolist(), len(rows)]
        with Path(self._path).open("rb", buffering=0) as file:
            for position, (low, high) in zip(places[edges[:-1]].tolist(), itertools.pairwise(edges), strict=True):
                file.seek(position)
                _fill(file, target[low * size : high * size])
        return out


def _fill(file: Any, target: memoryview) -> None:
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])
        if not count:
            raise OSError("the file ends before its data do")
        done += count
