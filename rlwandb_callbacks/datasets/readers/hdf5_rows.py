"""Scattered rows of an HDF5 array in little memory, however it is stored.

Arrays that are stored without filters are read from the file directly, row by row. Compressed chunks are inflated by
HDF5, each once; where those of one row take more than 32 MiB, in small pieces, see
:mod:`rlwandb_callbacks.datasets.readers.deflated_rows`.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Rows, is_numeric
from rlwandb_callbacks.datasets.readers.deflated_rows import InflatedRows
from rlwandb_callbacks.datasets.readers.uncompressed_rows import StoredRows

LARGE_BYTES = 32 * 2**20
_MAX_LISTED_CHUNKS = 2_000_000
_GAP_BYTES = 16 * 2**10
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_INFLATABLE = (["deflate"], ["deflate", "fletcher32"], ["shuffle", "deflate"], ["shuffle", "deflate", "fletcher32"])


class _RowReader(Protocol):
    def read(self, rows: Rows) -> NDArray[np.generic]: ...


class Hdf5Column:
    """An array of an HDF5 file.

    Args:
        dataset: An ``h5py.Dataset`` of an open file.
    """

    def __init__(self, dataset: Any) -> None:
        self.shape: tuple[int, ...] = tuple(dataset.shape or ())
        self.dtype: np.dtype[Any] = dataset.dtype
        self._dataset = dataset
        self._reader: _RowReader | None = None

    @property
    def costs(self) -> str:
        """A sentence on what reading costs where chunks are so large that memory is not bounded; else empty."""
        dataset = self._dataset
        filters = _filters(dataset)
        size = _chunk_bytes(dataset) * _chunks_across(dataset) if filters else 0
        if size <= LARGE_BYTES or filters in _INFLATABLE:
            return ""
        return (
            f"{dataset.name} is stored in chunks of {size / 2**20:,.0f} MiB a row, with the filters "
            f"{'+'.join(filters)}: reading any row takes some {3 * size / 2**20:,.0f} MiB of memory. Smaller "
            "chunks, or gzip, take less."
        )

    def read(self, rows: Rows) -> NDArray[np.generic]:
        if not len(rows):
            return np.empty((0, *self.shape[1:]), dtype=self.dtype)
        if self._reader is None:
            self._reader = _reader(self._dataset)
        return self._reader.read(rows)

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        return self.read(np.arange(low, high, dtype=np.int64))


def _reader(dataset: Any) -> _RowReader:
    if not is_numeric(dataset.dtype) or dataset.is_virtual or dataset.external or 0 in dataset.shape:
        return _LibraryRows(dataset)
    if dataset.chunks is None:
        offset = dataset.id.get_offset()  # None for arrays that are in the header, or that were never written
        if offset is None:
            return _LibraryRows(dataset)
        return StoredRows(dataset.file.filename, np.array([offset]), dataset.shape, dataset.dtype)
    filters = _filters(dataset)
    if filters and (_chunk_bytes(dataset) * _chunks_across(dataset) <= LARGE_BYTES or filters not in _INFLATABLE):
        return _LibraryRows(dataset)
    places = _chunk_places(dataset)
    return _LibraryRows(dataset) if places is None else _ChunkGrid(dataset, *places)


def _chunk_bytes(dataset: Any) -> int:
    size: int = math.prod(dataset.chunks) * dataset.dtype.itemsize
    return size


def _chunk_counts(dataset: Any) -> tuple[int, ...]:
    return tuple(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))


def _chunks_across(dataset: Any) -> int:
    """How many chunks one row lies in."""
    return math.prod(_chunk_counts(dataset)[1:])


def _filters(dataset: Any) -> list[str]:
    """Names of the filters in the order in which they were applied; numbers for those that are not HDF5's own."""
    properties = dataset.id.get_create_plist()
    numbers = (properties.get_filter(index)[0] for index in range(properties.get_nfilters()))
    return [_FILTERS.get(number, str(number)) for number in numbers]


def _chunk_places(dataset: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Start and size in the file of each chunk; None where some are not stored, or were stored without the filters."""
    counts = _chunk_counts(dataset)
    if math.prod(counts) > _MAX_LISTED_CHUNKS or not hasattr(dataset.id, "chunk_iter"):
        return None
    noted = array("q")

    def note(info: Any) -> None:
        noted.extend((*info.chunk_offset, info.byte_offset, info.size, info.filter_mask))

    dataset.id.chunk_iter(note)
    found = np.frombuffer(noted, dtype=np.int64).reshape(-1, len(counts) + 3)
    if len(found) != math.prod(counts) or found[:, -1].any():
        return None
    places = np.ravel_multi_index(tuple((found[:, : len(counts)] // dataset.chunks).T), counts)
    in_order = found[np.argsort(places)]
    return in_order[:, -3].reshape(counts), in_order[:, -2].reshape(counts)


def _runs(positions: NDArray[np.int64], gap: int) -> Iterator[tuple[int, int]]:
    """Indices ``low, high`` of stretches in which neighbors are at most ``gap`` apart."""
    edges = [0, *(np.flatnonzero(np.diff(positions) > gap) + 1).tolist(), len(positions)]
    yield from itertools.pairwise(edges)


class _InflatedChunks:
    """Rows of compressed chunks that are too large to be inflated in memory."""

    def __init__(self, dataset: Any, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        self._dtype, self._chunk = dataset.dtype, dataset.chunks
        filters = _filters(dataset)
        checksum = 4 if "fletcher32" in filters else 0
        self._chunks = [
            InflatedRows(
                dataset.file.filename,
                start=start,
                size=size - checksum,
                shape=dataset.chunks,
                dtype=dataset.dtype,
                shuffled="shuffle" in filters and dataset.dtype.itemsize > 1,
            )
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
        ]

    def read(self, rows: Rows) -> NDArray[np.generic]:
        out = np.empty((len(rows), *self._chunk[1:]), dtype=self._dtype)
        for low, high in _runs(rows // self._chunk[0], 0):
            index = int(rows[low]) // self._chunk[0]
            out[low:high] = self._chunks[index].read(rows[low:high] - index * self._chunk[0])
        return out


class _ChunkGrid:
    """Rows of an array whose chunks are read without HDF5; a row may lie in several."""

    def __init__(self, dataset: Any, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        self._shape, self._dtype = dataset.shape[1:], dataset.dtype
        inflate = bool(_filters(dataset))
        self._parts: list[tuple[tuple[slice, ...], tuple[slice, ...], _RowReader]] = []
        for place in np.ndindex(*starts.shape[1:]):
            lows = [index * size for index, size in zip(place, dataset.chunks[1:], strict=True)]
            highs = [min(low + size, end) for low, size, end in zip(lows, dataset.chunks[1:], self._shape, strict=True)]
            target = (slice(None), *(slice(low, high) for low, high in zip(lows, highs, strict=True)))
            inside = (slice(None), *(slice(0, high - low) for low, high in zip(lows, highs, strict=True)))
            column = (slice(None), *place)
            reader: _RowReader = (
                _InflatedChunks(dataset, starts[column], sizes[column])
                if inflate
                else StoredRows(dataset.file.filename, starts[column], dataset.chunks, dataset.dtype)
            )
            self._parts.append((target, inside, reader))

    def read(self, rows: Rows) -> NDArray[np.generic]:
        if len(self._parts) == 1:
            _, inside, reader = self._parts[0]
            return reader.read(rows)[inside]
        out = np.empty((len(rows), *self._shape), dtype=self._dtype)
        for target, inside, reader in self._parts:
            out[target] = reader.read(rows)[inside]
        return out


class _LibraryRows:
    """Rows that HDF5 reads and inflates, with a cache that holds the chunks of one row at a time."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._chunk_rows, self._inflates_anew = dataset.shape[0] or 1, False
        self._row_bytes = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
        if dataset.chunks:
            self._chunk_rows = dataset.chunks[0]
            self._set_cache(dataset)

    def _set_cache(self, dataset: Any) -> None:
        import h5py

        across = _chunks_across(dataset)
        size, compressed = _chunk_bytes(dataset) * across, bool(_filters(dataset))
        cached = compressed and size <= LARGE_BYTES
        self._inflates_anew = compressed and not cached
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        # Without a cache, HDF5 reads no more than the rows out of chunks that are not compressed.
        access.set_chunk_cache(max(521, 10 * across), size if cached else 0, 1.0)
        self._dataset = h5py.Dataset(h5py.h5d.open(dataset.file.id, dataset.name.encode(), access))

    def read(self, rows: Rows) -> NDArray[np.generic]:
        out = np.empty((len(rows), *self._dataset.shape[1:]), dtype=self._dataset.dtype)
        for first, end in _runs(rows // self._chunk_rows, 0):
            gap = self._chunk_rows if self._inflates_anew else max(1, _GAP_BYTES // self._row_bytes)
            for low, high in _runs(rows[first:end], gap):
                wanted = rows[first + low : first + high]
                piece = self._dataset[int(wanted[0]) : int(wanted[-1]) + 1]
                out[first + low : first + high] = piece[wanted - wanted[0]]
        return out
