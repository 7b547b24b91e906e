"""HDF5 files: opened with readable errors, and read in blocks by h5py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy import generic
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Column, FileColumn
from rlwandb_callbacks.datasets.formats.field_names import Aliases, find_fields
from rlwandb_callbacks.datasets.formats.flat import FlatReader, Tree
from rlwandb_callbacks.datasets.formats.hdf5_chunks import ChunkCheck, Storage
from rlwandb_callbacks.datasets.formats.hdf5_items import Hdf5Group
from rlwandb_callbacks.datasets.limits import FileLimits, require_regular_file
from rlwandb_callbacks.errors import DatasetError

EPISODE_GROUP = re.compile(r"episode_(\d+)")  # a group of this name holds one episode of a Minari data set
LARGE_CHUNK_BYTES = 32 * 2**20
_CACHE_SLOTS = 4_099  # a prime, larger than the number of chunks that a row lies in
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Returns whether a file has HDF5's signature, at its beginning or after a user block."""
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            if file.read(8) == _SIGNATURE:
                return True
            offset = max(512, 2 * offset)
    return False


@contextmanager
def open_hdf5(path: str) -> Iterator[Hdf5Group]:
    """Opens a file for reading; yields its root group.

    Raises:
        DatasetError: If h5py is not installed, or the file is not a complete HDF5 file.
    """
    try:
        import h5py
    except ImportError as error:
        raise DatasetError(
            f"{path} is an HDF5 file, and h5py, which reads it, is not installed: "
            'pip install "rlwandb-callbacks[offline]"'
        ) from error
    require_regular_file(Path(path))
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        problem = "is cut off or damaged" if is_hdf5(Path(path)) else "is not an HDF5 file"
        raise DatasetError(f"{path} {problem} ({error}). Copy or create it again.") from error
    with file:
        yield Hdf5Group(file, FileLimits.of(path))


class Hdf5Column(FileColumn):
    """An array of an HDF5 file.

    Compressed chunks can only be read whole, and chunks that split rows are slow to read in part. The chunk cache holds
    those that one row lies in, so that each is read once while rows ascend. Of other chunks, HDF5 reads only the rows.

    Args:
        dataset: An ``h5py.Dataset`` of an open file.
        limits: Limits of the file.
    """

    def __init__(self, dataset: Any, limits: FileLimits) -> None:
        self._storage = Storage.of(dataset)
        super().__init__(self._storage.shape, self._storage.dtype)
        self._file, self._name = dataset.file, dataset.name
        self._chunk_check = ChunkCheck(self._storage, limits)
        self._cache_bytes = self._storage.cache_bytes

    @property
    def memory_warning(self) -> str:
        """A sentence on the memory that reading takes, if chunks must be read whole and are large; else empty."""
        if self._cache_bytes <= LARGE_CHUNK_BYTES:
            return ""
        size = self._cache_bytes / 2**20
        return (
            f"{self._name} is stored in chunks of {size:,.0f} MiB a row, which are read whole: reading any row takes "
            f"about {3 * size:,.0f} MiB of memory. Smaller chunks, such as those of chunks=True in h5py, take less."
        )

    def span(self, low: int, high: int) -> NDArray[generic]:
        self._chunk_check.check(self._dataset, low, high)
        block: NDArray[generic] = self._dataset[low:high]
        return block

    @cached_property
    def _dataset(self) -> Any:
        import h5py

        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        # A preemption weight of 1 would keep chunks that were read in part, beyond the limit in bytes.
        access.set_chunk_cache(_CACHE_SLOTS, self._cache_bytes, 0.75)
        return h5py.Dataset(h5py.h5d.open(self._file.id, self._name.encode(), access), readonly=True)


def _column_or_tree(item: Any, limits: FileLimits) -> Column | Tree:
    if hasattr(item, "keys"):
        return {name: _column_or_tree(item[name], limits) for name in item}
    return Hdf5Column(item, limits)


def _memory_warnings(tree: Mapping[str, Any]) -> Iterator[str]:
    for item in tree.values():
        if isinstance(item, Mapping):
            yield from _memory_warnings(item)
        elif item.memory_warning:
            yield item.memory_warning


@contextmanager
def open_flat_hdf5(path: str, aliases: Aliases) -> Iterator[FlatReader]:
    """Opens an HDF5 file with one array per field; other arrays and groups, such as infos, are ignored."""
    with open_hdf5(path) as file:
        tree = {name: _column_or_tree(file[name], file.limits) for name in find_fields(file, aliases).values()}
        yield FlatReader(tree, path, aliases, keys=file, warnings=tuple(_memory_warnings(tree)))
