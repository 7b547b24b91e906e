"""HDF5 files: opened with readable errors, and read in blocks by h5py."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy import generic
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Column, FileColumn, is_numeric
from rlwandb_callbacks.datasets.formats.episode_marks import strict_fields
from rlwandb_callbacks.datasets.formats.field_names import REQUIRED, Aliases, find_fields
from rlwandb_callbacks.datasets.formats.flat import FlatReader, Tree
from rlwandb_callbacks.datasets.formats.hdf5_chunks import ChunkCheck, Storage
from rlwandb_callbacks.datasets.formats.hdf5_items import Hdf5Group
from rlwandb_callbacks.datasets.formats.hdf5_opening import open_file
from rlwandb_callbacks.datasets.formats.hdf5_virtual import gap_warning
from rlwandb_callbacks.datasets.formats.replay_buffers.names import buffer_keys, has_position, number_keys
from rlwandb_callbacks.datasets.formats.replay_buffers.saved import saved_reader
from rlwandb_callbacks.datasets.limits import FileLimits, require_regular_file
from rlwandb_callbacks.errors import DatasetError

EPISODE_GROUP = re.compile(r"episode_(\d+)")  # a group of this name holds one episode of a Minari data set
LARGE_CHUNK_BYTES = 32 * 2**20
_CACHE_SLOTS = 4_099  # a prime, larger than the number of chunks that a row lies in


@contextmanager
def open_hdf5(path: str) -> Iterator[Hdf5Group]:
    """Opens a file for reading; yields its root group.

    Raises:
        DatasetError: If h5py is not installed, the file is not a complete HDF5 file, or it is open for writing.
    """
    try:
        import h5py  # noqa: F401  # before the file is looked at
    except ImportError as error:
        raise DatasetError(
            f"{path} is an HDF5 file, and h5py, which reads it, is not installed: "
            'pip install "rlwandb-callbacks[offline]"'
        ) from error
    require_regular_file(Path(path))
    opened = open_file(path)
    with opened.file as file:
        yield Hdf5Group(file, FileLimits.of(path), is_unclosed=opened.is_unclosed)


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
    def gap_warning(self) -> str:
        """A sentence on rows that were never written although later ones were, if there are any; else empty."""
        return gap_warning(self._dataset)

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

    def keep_first(self, count: int) -> None:
        """Leaves out all rows after the first ``count``, if there are more."""
        self.shape = (min(count, self.shape[0]), *self.shape[1:]) if self.shape else self.shape

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


def _number_or_column(item: Any, limits: FileLimits) -> Any:
    return item[()] if getattr(item, "shape", None) == () and is_numeric(item.dtype) else _column_or_tree(item, limits)


def _columns_in(tree: Mapping[str, Any]) -> Iterator[Hdf5Column]:
    for item in tree.values():
        if isinstance(item, Mapping):
            yield from _columns_in(item)
        else:
            yield item


def _cut_to_whole_rows(tree: Mapping[str, Any], aliases: Aliases, path: str) -> str:
    """Leaves out rows of a file that was not closed which some columns lack; returns a sentence on the file."""
    names = find_fields(tree, aliases)
    by_row = {field: tree[names[field]] for field in (*REQUIRED, *strict_fields(names)) if field in names}
    count = min((column.shape[0] for column in _columns_in(by_row) if column.shape), default=0)
    for column in _columns_in(tree):
        column.keep_first(count)
    return (
        f"{path} was not closed: its writer was stopped, or still writes. The {count:,} rows that it had written to "
        "all arrays were read."
    )


@contextmanager
def open_flat_hdf5(path: str, aliases: Aliases) -> Iterator[FlatReader]:
    """Opens an HDF5 file with one array per field; other arrays and groups, such as infos, are ignored."""
    with open_hdf5(path) as file:
        if has_position({name: file[name] for name in number_keys(file) if file.shape_of(name) in ((), (1,))}):
            yield saved_reader(path, {name: _number_or_column(file[name], file.limits) for name in buffer_keys(file)})
            return
        tree = {name: _column_or_tree(file[name], file.limits) for name in find_fields(file, aliases).values()}
        warnings = [column.memory_warning for column in _columns_in(tree) if column.memory_warning]
        observations = find_fields(tree, aliases).get("observations", "")  # other arrays may be 0 on purpose
        gaps = (column.gap_warning for column in _columns_in({key: tree[key] for key in tree if key == observations}))
        warnings.extend(itertools.islice(filter(None, gaps), 1))
        if file.is_unclosed:
            warnings.append(_cut_to_whole_rows(tree, aliases, path))
        yield FlatReader(tree, path, aliases, keys=file, warnings=tuple(warnings))
