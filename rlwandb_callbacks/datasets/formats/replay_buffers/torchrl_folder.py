"""Folders of memory-mapped TensorDicts, as TorchRL's ``ReplayBuffer.dumps`` writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.flat import FlatReader
from rlwandb_callbacks.datasets.formats.replay_buffers.ring import BufferContent
from rlwandb_callbacks.datasets.formats.replay_buffers.torchrl import batch_content, ring_content
from rlwandb_callbacks.errors import DatasetError

_STORAGE, _WRITER = "storage", "writer/metadata.json"
_DTYPES = {
    "bool": "?", "uint8": "u1", "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8",
    "float16": "<f2", "float32": "<f4", "float64": "<f8",
}  # fmt: skip
_MAX_JSON_BYTES = 2**20
_MAX_DEPTH = 8


def is_torchrl_folder(path: Path) -> bool:
    """Returns whether a folder was written by ``ReplayBuffer.dumps``, or holds a memory-mapped TensorDict."""
    return any((root / "meta.json").is_file() for root in (path / _STORAGE, path))


def open_torchrl_folder(path: Path) -> OfflineDataset:
    """Opens a folder of ``ReplayBuffer.dumps``, or of a memory-mapped TensorDict.

    Raises:
        DatasetError: If files are missing, or are shorter than the folder declares.
    """
    return OfflineDataset(name=str(path), layout="torchrl", opener=partial(_open_folder, str(path)))


@contextmanager
def _open_folder(path: str) -> Iterator[FlatReader]:
    folder = Path(path)
    root = folder / _STORAGE if (folder / _STORAGE / "meta.json").is_file() else folder
    data, shape = _mapped(root)
    if not (root / "storage_metadata.json").is_file():
        yield batch_content(data, path).reader()
        return
    yield _stored(path, root, data, shape).reader()


def _stored(path: str, root: Path, data: Mapping[str, Any], shape: tuple[int, ...]) -> BufferContent:
    """Returns the rows of a storage: it declares all rows, and stores its fill and the place of the next row aside."""
    found, writer = _json(root / "storage_metadata.json"), root.parent / _WRITER
    if not writer.is_file():
        raise DatasetError(f"{path} has no {_WRITER}, which tells where its oldest row is. Write it again by dumps.")
    facts = _json(writer)
    length: Any = found.get("len")
    cursor: Any = facts.get("cursor")
    total: Any = facts.get("write_count", cursor)  # of earlier versions, which do not count
    numbers = (length, cursor, total)
    if any(type(number) is not int or number < 0 for number in numbers) or not shape or cursor > shape[0]:
        raise DatasetError(
            f"{path}: len is {length!r}, cursor {cursor!r} and write_count {total!r}; allowed are whole numbers, and a "
            f"cursor of at most {shape[:1]}, so that the order of its rows is known. Write it again by dumps."
        )
    wide = math.prod(shape[1:])
    written = {min(total, shape[0])} if "write_count" in facts else {cursor, shape[0]}
    is_item = wide > 1 and length in written  # else len counts all steps
    if is_item and length in {rows * wide for rows in written}:
        raise DatasetError(f"{path}: len is {length}, of items or of steps. Write it again by a newer torchrl.")
    rows = length if is_item else length // max(1, wide)
    if rows > shape[0] or (not is_item and rows * wide != length):
        raise DatasetError(
            f"{path}: len is {length}, which does not fit rows of shape {shape}. Write it again by dumps."
        )
    is_full = rows == shape[0]
    head, axes = cursor if is_full else 0, 1 if is_item else max(1, len(shape))
    return ring_content(path, _first(data, rows), head=head, ring_axes=axes, is_full=is_full)


def _first(data: Mapping[str, Any], rows: int) -> dict[str, Any]:
    return {key: _first(item, rows) if isinstance(item, Mapping) else item[:rows] for key, item in data.items()}


def _mapped(folder: Path, depth: int = 0) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Returns the arrays of a memory-mapped TensorDict, and the shape of its rows."""
    facts = _json(folder / "meta.json")
    if depth > _MAX_DEPTH:
        raise DatasetError(f"{folder} lies over {_MAX_DEPTH} TensorDicts deep.")
    data: dict[str, Any] = {}
    for key, item in facts.items():
        if not isinstance(item, Mapping) or "/" in key or key in (".", ".."):
            continue
        if item.get("type") == "TensorDict" or (folder / key / "meta.json").is_file():
            data[key] = _mapped(folder / key, depth + 1)[0]
        elif "dtype" in item and (array := _memmap(folder / f"{key}.memmap", item)) is not None:
            data[key] = array
    return data, _shape(facts.get("shape"), folder)


def _memmap(path: Path, facts: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
    """Returns a mapped array; None of a dtype that NumPy lacks."""
    dtype = _DTYPES.get(str(facts.get("dtype")).removeprefix("torch."))
    if dtype is None:
        return None
    shape = _shape(facts.get("shape"), path)
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if not path.is_file() or path.stat().st_size < needed:
        size = path.stat().st_size if path.is_file() else 0
        raise DatasetError(f"{path} has {size:,} bytes, and meta.json declares {needed:,}. Copy or create it again.")
    return np.memmap(path, dtype=dtype, mode="r", shape=shape) if needed else np.zeros(shape, dtype)


def _shape(value: Any, path: Path) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(size) is not int or size < 0 for size in value):
        raise DatasetError(f"{path}: its shape is {value!r} in meta.json; allowed is a list of whole numbers.")
    return tuple(value)


def _json(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        text = file.read(_MAX_JSON_BYTES)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not complete JSON ({error}). Copy or create it again.") from None
    if not isinstance(found, Mapping):
        raise DatasetError(f"{path} holds a {type(found).__name__}; allowed is an object with names.")
    return found
