"""NumPy's ``.npz``: a zip archive with one array per field, read as a stream and never unpickled."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import ArrayColumn, Column, FileColumn, is_numeric
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.field_names import find_fields
from rlwandb_callbacks.datasets.formats.flat import FlatReader, Tree
from rlwandb_callbacks.errors import DatasetError

# Chunk of a DreamerV3 replay: <time>-<id>-<id of the next>-<number of rows>. The rows after these hold anything.
_CHUNK = re.compile(r"\d{8}T\d{6}\w*-\w+-\w+-(\d+)")


def open_npz(path: Path) -> OfflineDataset:
    """Opens an ``.npz`` file with the keys of any flat layout; ``observations/position`` is a part of a dict.

    Raises:
        DatasetError: If it is damaged, holds objects, or arrays are missing or do not fit together.
    """
    return OfflineDataset(name=str(path), layout="npz", opener=partial(_open, str(path)), file=str(path))


@contextmanager
def _open(path: str) -> Iterator[FlatReader]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DatasetError(f"{path} is not a complete .npz file ({error}). Copy or create it again.") from error
    with archive, ExitStack() as streams:
        members = _nested(archive.namelist())
        tree: Tree = {key: _column_or_tree(archive, members[key], streams) for key in find_fields(members).values()}
        yield FlatReader(tree, path, keys=members)


def _nested(names: list[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name in names:
        *groups, leaf = name.removesuffix(".npy").split("/")
        inner = tree
        for group in groups:
            found = inner.setdefault(group, {})
            inner = found if isinstance(found, dict) else {}
        inner[leaf] = name
    return tree


def _column_or_tree(archive: zipfile.ZipFile, member: Any, streams: ExitStack) -> Column | Tree:
    if isinstance(member, dict):
        return {key: _column_or_tree(archive, inner, streams) for key, inner in member.items()}
    return _column(archive, member, streams)


def _written_rows(path: str, count: int) -> int:
    match = _CHUNK.fullmatch(Path(path).stem)
    return count if match is None else min(count, int(match[1]))


def _column(archive: zipfile.ZipFile, name: str, streams: ExitStack) -> Column:
    try:
        stream = streams.enter_context(archive.open(name))
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, column_major, dtype = read_header(stream)
        if column_major and len(shape) > 1 and is_numeric(dtype):
            stream.seek(0)
            return ArrayColumn(npy.read_array(stream, allow_pickle=False))
    except (ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise DatasetError(f"{archive.filename}: {name} is not a complete array ({error}).") from error
    written = (_written_rows(str(archive.filename), shape[0]), *shape[1:]) if shape else shape
    return _NpyColumn(stream, written, dtype)


class _NpyColumn(FileColumn):
    """An array of the archive in row-major order; quick where rows ascend from call to call.

    Args:
        stream: The ``.npy`` file, at the first row.
        shape: Shape of the array.
        dtype: Its dtype.
    """

    def __init__(self, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(shape, dtype)
        self._stream, self._start = stream, stream.tell()

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            self._stream.seek(self._start + low * size)
            data = self._stream.read((high - low) * size)
        except (EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise OSError(f"its compressed data are damaged ({error})") from error
        if len(data) < (high - low) * size:
            raise OSError("its data end too early")
        return np.frombuffer(data, self.dtype).reshape(high - low, *self.shape[1:])
