"""Compressed chunks of HDF5 arrays: their sizes, and a check that they hold no more than the array declares.

HDF5 decompresses gzip to the end of the stream, however long that is, and compares the size with that of the chunk
afterwards.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.limits import FileLimits
from rlwandb_callbacks.errors import DatasetError

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # numbers of HDF5 filters
_MAX_INFLATION = 1_032  # of zlib
_PIECE_BYTES = 64 * 2**10  # of compressed data
_PART_BYTES = 2**20  # of decompressed data


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """How the values of an array are stored.

    Args:
        shape: Shape of the array; empty if it holds one value or none.
        dtype: Dtype of the values.
        chunks: Shape of a chunk; None if the values are not stored in chunks.
        filters: Numbers of the filters that values pass when they are written, in this order.
        is_virtual: Whether the array is made of other arrays.
        is_external: Whether the values are in other files.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    filters: tuple[int, ...]
    is_virtual: bool
    is_external: bool

    @classmethod
    def of(cls, dataset: Any) -> Storage:
        """Reads the storage of an ``h5py.Dataset`` once; each of its properties would read all of it."""
        import h5py

        created = dataset.id.get_create_plist()
        layout = created.get_layout()
        return cls(
            shape=tuple(dataset.shape or ()),
            dtype=dataset.dtype,  # an error here is one of a damaged or unknown type
            chunks=created.get_chunk() if layout == h5py.h5d.CHUNKED else None,
            filters=tuple(created.get_filter(index)[0] for index in range(created.get_nfilters())),
            is_virtual=layout == h5py.h5d.VIRTUAL,
            is_external=created.get_external_count() > 0,
        )

    @property
    def cache_bytes(self) -> int:
        """Decompressed size of the chunks that one row lies in; 0 if a row can be read without them."""
        if self.chunks is None:
            return 0
        count = math.prod(-(-size // chunk) for size, chunk in zip(self.shape[1:], self.chunks[1:], strict=True))
        return math.prod(self.chunks) * count * self.dtype.itemsize if count != 1 or self.filters else 0

    @property
    def is_compressed_twice(self) -> bool:
        """Whether another filter than a checksum follows gzip, so that sizes cannot be foreseen."""
        if _DEFLATE not in self.filters:
            return False
        return any(code != _FLETCHER32 for code in self.filters[self.filters.index(_DEFLATE) + 1 :])


_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])  # of a row of variable length


def check_row_lengths(dataset: Any, limits: FileLimits) -> None:
    """Checks rows of variable length before HDF5 reads them: it makes room for what their references declare.

    Args:
        dataset: An ``h5py.Dataset`` of shape ``[N]`` with rows of bytes.
        limits: Limits of the file.

    Raises:
        DatasetError: If a row is longer than the file.
    """
    for references in _row_references(dataset, limits):
        longest = int(references["length"].max(initial=0))
        if longest > limits.file_bytes:
            raise DatasetError(
                f"{limits.path}: {dataset.name} declares a row of {longest:,} bytes in a file of "
                f"{limits.file_bytes:,} bytes. The file is damaged."
            )


def _row_references(dataset: Any, limits: FileLimits) -> Iterator[NDArray[np.void]]:
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is not None:
            yield np.fromfile(limits.path, _REFERENCE, dataset.shape[0], offset=offset)
        return
    codes = Storage.of(dataset).filters
    for index in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(index)
        mask, raw = dataset.id.read_direct_chunk(chunk.chunk_offset)
        applied = [code for bit, code in enumerate(codes) if not mask >> bit & 1]  # HDF5 leaves out those that fail
        yield np.frombuffer(_unfiltered(raw, applied, dataset.chunks[0] * _REFERENCE.itemsize), _REFERENCE)


def _unfiltered(raw: bytes, codes: list[int], size: int) -> bytes:
    """Undoes gzip and shuffling of a chunk of ``size`` bytes; empty if it is shorter."""
    if _DEFLATE in codes:
        raw = zlib.decompressobj().decompress(raw, size)
    whole = raw[: size if len(raw) >= size else 0]
    if _SHUFFLE in codes:
        whole = np.frombuffer(whole, np.uint8).reshape(_REFERENCE.itemsize, -1).T.tobytes()
    return whole


class ChunkCheck:
    """Checks the chunks of one array before HDF5 decompresses them, each once.

    Only chunks that could take much memory are looked at: those of h5py's usual size are far smaller. The array is not
    kept open: HDF5 sets the chunk cache of an array when it is first opened.

    Args:
        storage: How the values of the array are stored.
        limits: Limits of the file.
    """

    def __init__(self, storage: Storage, limits: FileLimits) -> None:
        self._storage, self._limits = storage, limits
        self._harmless_bytes = limits.memory_bytes // (2 * _MAX_INFLATION)
        codes = storage.filters if storage.chunks is not None else ()
        self._filter_bit = 1 << codes.index(_DEFLATE) if _DEFLATE in codes else 0
        self._is_needed = bool(self._filter_bit) and limits.file_bytes > self._harmless_bytes
        self._checked: set[int] = set()

    def check_all(self, dataset: Any) -> None:
        """Checks all chunks of an open ``h5py.Dataset``."""
        if self._is_needed:
            self.check(dataset, 0, self._storage.shape[0])

    def check(self, dataset: Any, low: int, high: int) -> None:
        """Checks the chunks of the rows from ``low`` up to, not including, ``high``.

        Args:
            dataset: The array, an open ``h5py.Dataset``.
            low: First row.
            high: Row after the last.

        Raises:
            DatasetError: If one of them holds more than the array declares.
        """
        if not self._is_needed or high <= low:
            return
        height, *others = self._storage.chunks or ()
        for index in set(range(low // height, (high - 1) // height + 1)) - self._checked:
            rest = (range(0, size, step) for size, step in zip(self._storage.shape[1:], others, strict=True))
            for place in itertools.product([index * height], *rest):
                self._check_chunk(dataset, place)
            self._checked.add(index)

    def _check_chunk(self, dataset: Any, place: tuple[int, ...]) -> None:
        chunk = dataset.id.get_chunk_info_by_coord(place)
        if chunk.byte_offset is None or chunk.size <= self._harmless_bytes or chunk.filter_mask & self._filter_bit:
            return
        declared = math.prod(self._storage.chunks or ()) * self._storage.dtype.itemsize
        _, stored = dataset.id.read_direct_chunk(place)
        if _inflates_beyond(stored, declared):
            raise DatasetError(
                f"{self._limits.path}: {dataset.name} holds a compressed chunk with more than the {declared:,} "
                "bytes that a chunk of this array has. The file is damaged, or was made to fill up memory."
            )


def _inflates_beyond(compressed: bytes, limit: int) -> bool:
    """Returns whether gzip data hold more bytes than a limit; takes about a megabyte of memory."""
    stream, size = zlib.decompressobj(), 0
    for start in range(0, len(compressed), _PIECE_BYTES):
        rest: bytes | memoryview = memoryview(compressed)[start : start + _PIECE_BYTES]
        while rest and size <= limit and not stream.eof:
            try:
                size += len(stream.decompress(rest, _PART_BYTES))
            except zlib.error:
                return False  # HDF5 reports damaged chunks
            rest = stream.unconsumed_tail
            # Without a rest, a few kilobytes may remain in the stream; they are too few to matter here.
    return size > limit
