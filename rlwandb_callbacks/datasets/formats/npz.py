"""NumPy's ``.npz``: a zip archive with one array per field, read as a stream and never unpickled."""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import ArrayColumn, Column, FileColumn, is_numeric
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.field_names import find_fields
from rlwandb_callbacks.datasets.formats.flat import FlatReader, Tree
from rlwandb_callbacks.datasets.formats.replay_buffers.names import buffer_keys
from rlwandb_callbacks.datasets.formats.replay_buffers.saved import is_saved_buffer, refuse_cpprb, saved_reader
from rlwandb_callbacks.datasets.limits import FileLimits, require_regular_file
from rlwandb_callbacks.datasets.safe_pickle.file import ZIP_ERRORS
from rlwandb_callbacks.errors import DatasetError, brief

# Chunk of a DreamerV3 replay: <time>-<id>-<id of the next>-<number of rows>. The rows after these hold anything.
_CHUNK = re.compile(r"\d{8}T\d{6}\w*-\w+-\w+-(\d+)")
_MAX_HEADER_BYTES = 64 * 2**10
_ROW_MAJOR = "Save it in row-major order, as numpy.ascontiguousarray(array)."


def open_npz(path: Path) -> OfflineDataset:
    """Opens an ``.npz`` file with the keys of any flat layout; ``observations/position`` is a part of a dict.

    Raises:
        DatasetError: If it is damaged, holds objects, or arrays are missing or do not fit together.
    """
    return OfflineDataset(name=str(path), layout="npz", opener=partial(_open, str(path)), file=str(path))


@contextmanager
def _open(path: str) -> Iterator[FlatReader]:
    require_regular_file(Path(path))
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise DatasetError(f"{path} is not a complete .npz file ({brief(error)}). Copy or create it again.") from error
    with archive, ExitStack() as streams:
        members = _nested(archive.namelist())
        refuse_cpprb(path, members)
        read = cache(lambda key: _column_or_tree(archive, members[key], streams))
        if is_saved_buffer(path, members, read):
            yield saved_reader(path, {key: read(key) for key in buffer_keys(members)})
            return
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
    limits = FileLimits.of(str(archive.filename))
    try:
        info = _own_member(archive, name)
        stream = streams.enter_context(archive.open(name))
        start, shape, column_major, dtype = _read_header(stream)
        if is_numeric(dtype):
            limits.check_array(name, shape, dtype.itemsize, info.compress_size)
        if column_major and len(shape) > 1 and is_numeric(dtype):
            limits.check_memory(name, math.prod(shape) * dtype.itemsize, _ROW_MAJOR)
            stream.seek(0)
            return ArrayColumn(npy.read_array(stream, allow_pickle=False))
    except DatasetError:
        raise
    except (*ZIP_ERRORS, LookupError, OSError, SyntaxError, TypeError, TokenError) as error:
        raise DatasetError(f"{archive.filename}: {name} is not a complete array ({brief(error)}).") from error
    written = (_written_rows(str(archive.filename), shape[0]), *shape[1:]) if shape else shape
    return _NpyColumn(stream, start, written, dtype)


def _own_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("compressed by another method than that of numpy.savez_compressed")
    return info


def _read_header(stream: IO[bytes]) -> tuple[int, tuple[int, ...], bool, np.dtype[Any]]:
    """Returns where the rows begin, the shape, whether the array is column-major, and its dtype."""
    beginning = io.BytesIO(stream.read(_MAX_HEADER_BYTES))  # the length of the header is not trusted
    version = npy.read_magic(beginning)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, column_major, dtype = read_header(beginning)
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    return beginning.tell(), shape, column_major, dtype


class _NpyColumn(FileColumn):
    """An array of the archive in row-major order; quick where rows ascend from call to call.

    Args:
        stream: The ``.npy`` file.
        start: Where the first row begins in it.
        shape: Shape of the array.
        dtype: Its dtype.
    """

    def __init__(self, stream: IO[bytes], start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(shape, dtype)
        self._stream, self._start = stream, start

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            self._stream.seek(self._start + low * size)
            data = self._stream.read((high - low) * size)
        except ZIP_ERRORS as error:
            raise OSError(f"its compressed data are damaged ({brief(error)})") from error
        if len(data) < (high - low) * size:
            raise OSError("its data end too early")
        return np.frombuffer(data, self.dtype).reshape(high - low, *self.shape[1:])
