"""NumPy's ``.npz``: a zip archive with one array per quantity, never unpickled.

Rows of arrays that are stored uncompressed are read in place; compressed ones are inflated in small pieces.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import ArrayColumn, Column, Rows, is_numeric
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.flat import FlatOpened, Tree, find_roles
from rlwandb_callbacks.datasets.readers.deflated_rows import InflatedRows
from rlwandb_callbacks.datasets.readers.uncompressed_rows import StoredRows
from rlwandb_callbacks.errors import DatasetError

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: 26 bytes, then the lengths of its name and of extras


def open_npz(path: Path) -> OfflineDataset:
    """Opens an ``.npz`` file whose keys are those of any flat layout; ``observations/position`` is a part of a dict.

    Raises:
        DatasetError: If it is damaged, holds objects, or arrays are missing or do not fit together.
    """
    return OfflineDataset(name=str(path), layout="npz", opener=partial(_open, str(path)), file=str(path))


@contextmanager
def _open(path: str) -> Iterator[FlatOpened]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DatasetError(f"{path} is no whole .npz file ({error}). Copy or make it anew.") from error
    with archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        nested = _nested(members)
        wanted: Tree = {key: _column_or_tree(path, archive, nested[key]) for key in find_roles(nested).values()}
        yield FlatOpened(wanted, path, keys=tuple(nested))


def _nested(members: dict[str, zipfile.ZipInfo]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, info in members.items():
        *groups, leaf = name.split("/")
        place = tree
        for group in groups:
            inner = place.setdefault(group, {})
            place = inner if isinstance(inner, dict) else {}
        place[leaf] = info
    return tree


def _column_or_tree(path: str, archive: zipfile.ZipFile, found: Any) -> Column | Tree:
    if isinstance(found, dict):
        return {key: _column_or_tree(path, archive, inner) for key, inner in found.items()}
    return _column(path, archive, found)


def _column(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Column:
    try:
        with archive.open(info) as file:
            version = npy.read_magic(file)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, column_major, dtype = read_header(file)
            header_size = file.tell()
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: {info.filename} is no whole array ({error}).") from error
    if not is_numeric(dtype) or not shape:
        return _Rows(None, shape, dtype)
    if column_major and len(shape) > 1:
        with archive.open(info) as file:
            return ArrayColumn(npy.read_array(file, allow_pickle=False))
    start = _start(path, info)
    if info.compress_type == zipfile.ZIP_STORED:
        return _Rows(StoredRows(path, np.array([start + header_size]), shape, dtype), shape, dtype)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        rows = InflatedRows(
            path, start=start, size=info.compress_size, shape=shape, dtype=dtype, heading=header_size, bare=True
        )
        return _Rows(rows, shape, dtype)
    raise DatasetError(
        f"{path}: {info.filename} is compressed in a way that NumPy does not use; save it by numpy.savez."
    )


class _Rows:
    """An array in the archive.

    Args:
        rows: Reads it; None for objects, which are refused by their dtype.
    """

    def __init__(self, rows: StoredRows | InflatedRows | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._rows, self.shape, self.dtype = rows, shape, dtype

    def read(self, rows: Rows) -> NDArray[np.generic]:
        if self._rows is None or not len(rows):
            return np.empty((0, *self.shape[1:]), dtype=self.dtype)
        return self._rows.read(rows)

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        return self.read(np.arange(low, high, dtype=np.int64))


def _start(path: str, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin in the file."""
    with Path(path).open("rb") as file:
        file.seek(info.header_offset)
        name_size, extra_size = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return info.header_offset + _LOCAL_HEADER.size + int(name_size) + int(extra_size)
