"""Replay buffers of tianshou, in memory and as written by ``save_hdf5``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.columns import ArrayColumn, Column, Rows
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.field_names import find_fields, listed
from rlwandb_callbacks.datasets.formats.flat import FlatReader, Tree
from rlwandb_callbacks.datasets.formats.hdf5 import Hdf5Column, open_hdf5
from rlwandb_callbacks.datasets.formats.hdf5_items import Hdf5Group
from rlwandb_callbacks.datasets.formats.memory import as_array
from rlwandb_callbacks.datasets.formats.records import is_mapping
from rlwandb_callbacks.datasets.formats.replay_buffers.names import find_number
from rlwandb_callbacks.datasets.formats.replay_buffers.ring import OVERWRITTEN, BufferContent, columns_of, ring_rows
from rlwandb_callbacks.datasets.limits import FileLimits
from rlwandb_callbacks.errors import DatasetError

_READ = ("observations", "actions", "rewards", "terminals", "timeouts", "dones")
_LIVE = frozenset(("_meta", "maxsize", "last_index", "_insertion_idx", "_size"))
_SAVED = frozenset(("_meta", "last_index"))


def find_tianshou(attributes: Mapping[str, Any], name: str) -> BufferContent | None:
    """Returns the content of a buffer of tianshou; None of anything else.

    Args:
        attributes: Attributes of the buffer.
        name: Name of the buffer in messages.
    """
    if not set(attributes) >= _LIVE or not is_mapping(attributes["_meta"]):
        return None
    meta = attributes["_meta"]
    parts = _parts(attributes)
    states = [_state(part, name) for _, part in parts]
    order = [offset + ring_rows(*state) for (offset, _), state in zip(parts, states, strict=True)]
    is_full = any(size == capacity for capacity, _, size in states)
    tree = {
        field: _original(columns_of(meta[key], f"{name}: {key}"), key, parts)
        for field, key in find_fields(tuple(meta.keys())).items()
        if field in _READ
    }
    return BufferContent(name=name, tree=tree, order=order, warnings=(OVERWRITTEN,) * is_full)


def _parts(attributes: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """Returns the first row and the attributes of each buffer that a buffer is made of."""
    if "_offset" not in attributes or "buffers" not in attributes:
        return [(0, attributes)]
    return [
        (int(offset), vars(part)) for offset, part in zip(attributes["_offset"], attributes["buffers"], strict=True)
    ]


def _state(part: Mapping[str, Any], name: str) -> tuple[int, int, int]:
    """Returns the number of rows of a buffer, the row that is written next, and how many rows are written."""
    numbers = [find_number(part, (key,)) for key in ("maxsize", "_insertion_idx", "_size")]
    capacity, head, size = (-1 if number is None else number[1] for number in numbers)
    if not (0 <= head <= capacity and 0 <= size <= capacity):
        raise DatasetError(
            f"{name}: _insertion_idx is {part['_insertion_idx']!r} and _size is {part['_size']!r}; allowed are whole "
            f"numbers from 0 to its maxsize, which is {part['maxsize']!r}."
        )
    return capacity, head, size


def _original(item: Column | Tree, key: str, parts: list[tuple[int, Mapping[str, Any]]]) -> Column | Tree:
    """Returns columns without the goals and rewards that hindsight replay puts there until it samples again."""
    for offset, part in parts:
        changed = np.asarray(part.get("_altered_indices", ()))
        original: Any = part.get("_original_meta")
        if changed.size and is_mapping(original) and key in tuple(original.keys()):
            item = _replaced(item, changed.astype(np.int64) + offset, original[key], key)
    return item


def _replaced(item: Column | Tree, rows: Rows, values: Any, name: str) -> Column | Tree:
    if isinstance(item, Mapping):
        return {key: _replaced(inner, rows, values[key], f"{name}/{key}") for key, inner in item.items()}
    array = np.array(item.span(0, item.shape[0]))
    array[rows] = as_array(values, name)
    return ArrayColumn(array)


def is_tianshou_file(keys: Mapping[str, tuple[int, ...] | None]) -> bool:
    """Returns whether an HDF5 file with these keys was written by ``save_hdf5``.

    Args:
        keys: Shape of each array, None of groups.
    """
    return set(keys) >= _SAVED and keys["_meta"] is None


def open_tianshou_file(path: Path) -> OfflineDataset:
    """Opens an HDF5 file of ``ReplayBuffer.save_hdf5``, also of vector buffers.

    Raises:
        DatasetError: If it is damaged, or arrays are missing or do not fit together.
    """
    return OfflineDataset(name=str(path), layout="hdf5", opener=partial(_open_file, str(path)), file=str(path))


@contextmanager
def _open_file(path: str) -> Iterator[FlatReader]:
    with open_hdf5(path) as file:
        meta = file["_meta"]
        keys = find_fields(meta.keys())
        tree = {field: _column_or_tree(meta[key], file.limits) for field, key in keys.items() if field in _READ}
        order, warnings = _saved_order(file, path, tree)
        yield BufferContent(name=path, tree=tree, order=order, warnings=warnings).reader()


def _column_or_tree(item: Any, limits: FileLimits) -> Column | Tree:
    if hasattr(item, "keys"):
        return {name: _column_or_tree(item[name], limits) for name in item}
    return Hdf5Column(item, limits)


def _saved_order(file: Hdf5Group, path: str, tree: Tree) -> tuple[list[Rows], tuple[str, ...]]:
    """Returns the order of rows: ``last_index`` is the newest row of each part of a vector buffer."""
    rewards = tree.get("rewards")
    count = 0 if rewards is None or isinstance(rewards, Mapping) else rewards.shape[0]
    if "_lengths" in file:
        lengths, edges = _numbers(file, "_lengths"), _numbers(file, "_extend_offset")
        heads = _numbers(file, "last_index") + 1
    else:
        size, head = file.whole_number("_size"), file.whole_number("_insertion_idx")
        known = -1 if size is None or head is None else size
        lengths, edges, heads = np.array([known]), np.array([0, count]), np.array([head or 0])
    sizes = np.diff(edges)
    are_right = len(heads) == len(lengths) == len(sizes) and edges[0] == 0 and edges[-1] == count
    if not are_right or ((lengths < 0) | (lengths > sizes) | (heads < edges[:-1]) | (heads > edges[1:])).any():
        raise DatasetError(
            f"{path}: its numbers of written rows ({listed(lengths)}) and of next rows ({listed(heads)}) do not fit "
            f"{count} rows of rewards, so that their order is not known. Save the buffer again by save_hdf5."
        )
    order = [
        low + ring_rows(int(size), int(head - low), int(length))
        for low, size, head, length in zip(edges[:-1], sizes, heads, lengths, strict=True)
    ]
    return order, (OVERWRITTEN,) * bool((lengths == sizes).any())


def _numbers(file: Hdf5Group, name: str) -> Rows:
    column = Hdf5Column(file[name], file.limits)
    return np.asarray(column.span(0, column.shape[0])).reshape(-1).astype(np.int64)
