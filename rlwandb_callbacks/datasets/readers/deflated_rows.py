"""Rows of one large deflated piece of a file, without ever holding the piece inflated.

HDF5 inflates a chunk as a whole, however few of its rows are asked for: a file that is one compressed chunk of 2 GB
would take more than 2 GB of memory. Here the chunk is inflated in small pieces that are thrown away as they pass.
"""

from __future__ import annotations

import itertools
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Rows

_PIECE_BYTES = 2**18


class _Plane:
    """A position in a deflated stream; it only moves forward."""

    def __init__(self, path: str, start: int, end: int, window_bits: int) -> None:
        self._path, self._position, self._end = path, start, end
        self._window_bits = window_bits
        self._inflater: Any = zlib.decompressobj(window_bits)
        self._waiting = b""

    def copy(self) -> _Plane:
        other = _Plane(self._path, self._position, self._end, self._window_bits)
        other._inflater, other._waiting = self._inflater.copy(), self._waiting
        return other

    def skip(self, count: int) -> None:
        while count:
            count -= len(self._piece(min(count, _PIECE_BYTES)))

    def read(self, count: int) -> bytearray:
        found = bytearray()
        while len(found) < count:
            found += self._piece(count - len(found))
        return found

    def _piece(self, at_most: int) -> bytes:
        while True:
            if not self._waiting:
                self._waiting = self._stored()
            try:
                inflated: bytes = self._inflater.decompress(self._waiting, at_most)
            except zlib.error as error:
                raise OSError(f"its compressed data are damaged ({error})") from error
            self._waiting = self._inflater.unconsumed_tail
            if inflated:
                return inflated
            if self._inflater.eof:
                raise OSError("its compressed data end too early")

    def _stored(self) -> bytes:
        with Path(self._path).open("rb", buffering=0) as file:
            file.seek(self._position)
            stored = file.read(min(_PIECE_BYTES, self._end - self._position))
        if not stored:
            raise OSError("its compressed data end too early")
        self._position += len(stored)
        return stored


class InflatedRows:
    """Rows of a deflated array; quick where the rows that are asked for ascend from call to call.

    HDF5's shuffle filter stores the first bytes of all elements, then all second bytes, and so on. Each of these
    planes is read at its own position.

    Args:
        path: The file.
        start: Where the deflated bytes begin.
        size: How many there are.
        shape: Of the whole array, ``(R, ...)``.
        dtype: Of its elements.
        shuffled: Whether HDF5's shuffle filter was applied.
        heading: How many inflated bytes there are before the array.
        bare: Whether the stream lacks zlib's header, as in zip archives.
    """

    def __init__(
        self,
        path: str,
        *,
        start: int,
        size: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        shuffled: bool = False,
        heading: int = 0,
        bare: bool = False,
    ) -> None:
        self._stream = path, start, start + size, -zlib.MAX_WBITS if bare else zlib.MAX_WBITS
        self._shape, self._dtype, self._heading = shape, dtype, heading
        elements = math.prod(shape[1:])
        self._plane_count = dtype.itemsize if shuffled else 1
        self._unit = elements if shuffled else elements * dtype.itemsize
        self._planes: list[_Plane] = []
        self._next_row = 0

    def read(self, rows: Rows) -> NDArray[np.generic]:
        """Reads ascending rows: shape ``[K, ...]``."""
        out = np.empty((len(rows), *self._shape[1:]), dtype=self._dtype)
        edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for low, high in itertools.pairwise(edges):
            out[low:high] = self._run(int(rows[low]), high - low)
        return out

    def _run(self, first: int, count: int) -> NDArray[np.generic]:
        if not self._planes or first < self._next_row:
            self._rewind()
        parts = []
        for plane in self._planes:
            plane.skip((first - self._next_row) * self._unit)
            parts.append(np.frombuffer(plane.read(count * self._unit), dtype=np.uint8))
        self._next_row = first + count
        whole = np.ascontiguousarray(np.stack(parts, axis=1)) if len(parts) > 1 else parts[0]
        return whole.reshape(-1).view(self._dtype).reshape(count, *self._shape[1:])

    def _rewind(self) -> None:
        self._next_row = 0
        self._planes = [_Plane(*self._stream)]
        self._planes[0].skip(self._heading)
        for _ in range(1, self._plane_count):
            plane = self._planes[-1].copy()
            plane.skip(self._shape[0] * self._unit)
            self._planes.append(plane)
