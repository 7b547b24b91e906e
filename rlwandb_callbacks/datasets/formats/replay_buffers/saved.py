"""Files with the arrays of a buffer: those that have its position, and memories of skrl, which have none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Flags, Rows, is_numeric
from rlwandb_callbacks.datasets.formats.field_names import ALIASES, NEXT_OBSERVATIONS, find_fields
from rlwandb_callbacks.datasets.formats.flat import FlatReader, join_columns
from rlwandb_callbacks.datasets.formats.memory import as_array
from rlwandb_callbacks.datasets.formats.records import is_mapping
from rlwandb_callbacks.datasets.formats.replay_buffers.names import has_position, number_keys, usual_name
from rlwandb_callbacks.datasets.formats.replay_buffers.positions import find_positions
from rlwandb_callbacks.datasets.formats.replay_buffers.ring import (
    BufferContent,
    columns_of,
    find_seam,
    ring_rows,
    without_axis,
)
from rlwandb_callbacks.datasets.limits import FileLimits
from rlwandb_callbacks.errors import DatasetError

_SKRL = re.compile(r"[\d-]+_[\d-]+_memory_0x[0-9a-f]+\.(npz|pt|csv)")  # <date>_<time>_memory_<address>
_CPPRB = frozenset(("data", "safe", "version", "Nstep"))
_FIELDS = frozenset(name for names in ALIASES.values() for name in names)
_MARKS = ("terminals", "timeouts", "dones")
_NOT_WHOLE = "Give the buffer itself to rlwandb_callbacks.open_dataset, and save that."


def is_skrl_file(path: str | Path) -> bool:
    """Returns whether a file has a name that skrl gives to its memories."""
    return _SKRL.fullmatch(Path(path).name) is not None


def is_saved_buffer(path: str | Path, keys: Iterable[object], read: Callable[[str], Any]) -> bool:
    """Returns whether a file is read as a buffer: its arrays come with a position, or skrl wrote it.

    Args:
        path: The file.
        keys: All of its keys.
        read: Returns the array, or the column, of a key; groups are mappings.
    """
    return has_position({key: read(key) for key in number_keys(keys)}) or is_skrl_file(path)


def refuse_cpprb(path: str, keys: Iterable[object]) -> None:
    """Raises a DatasetError for a file of cpprb's ``save_transitions``."""
    if set(keys) >= _CPPRB:
        raise DatasetError(
            f"{path} was written by cpprb's save_transitions: its arrays are pickled, and it does not hold which row "
            'is the oldest. Save the buffer while it is in memory: rlwandb_callbacks.open_dataset(rb).save("a.npz").'
        )


def saved_reader(path: str, items: Mapping[str, Any]) -> FlatReader:
    """Returns an open data set of the rows of a saved buffer, in the order in which they were written.

    Args:
        path: The file.
        items: Its arrays, or columns of these, by key; nested for dict observations.

    Raises:
        DatasetError: If the order of the rows is not known.
    """
    limits = FileLimits.of(path)
    arrays = {key: _whole(value, key, limits) for key, value in items.items() if not _is_other(key, value)}
    if (content := find_positions(arrays, path)) is None and is_skrl_file(path):
        content = _memory(path, arrays)
    if content is None:
        wanted = find_fields(arrays).values()
        return FlatReader({key: columns_of(arrays[key], f"{path}: {key}") for key in wanted}, path, keys=arrays)
    return content.reader()


def _is_other(key: str, item: Any) -> bool:
    """Returns whether something other than a number has the name of a position, a fill level or a setting."""
    dtype = getattr(item, "dtype", None)
    return isinstance(dtype, np.dtype) and not is_numeric(dtype) and usual_name(key) not in _FIELDS


def _whole(item: Any, name: str, limits: FileLimits) -> Any:
    if is_mapping(item):
        return {str(key): _whole(item[key], f"{name}/{key}", limits) for key in tuple(item.keys())}
    if not hasattr(item, "span"):
        return as_array(item, name)
    if not is_numeric(item.dtype):
        join_columns(name, item, limits.path)  # raises
    if not item.shape:
        return item.span(0, 1).reshape(())
    size = int(np.prod(item.shape, dtype=np.int64)) * item.dtype.itemsize
    limits.check_memory(name, size, "Save it without compression.")
    return item.span(0, item.shape[0])


def _memory(path: str, arrays: Mapping[str, Any]) -> BufferContent | None:
    """Returns the content of a memory of skrl: arrays of shape ``[B, E, ...]``, NaN where nothing was written."""
    fields = find_fields(arrays)
    read = {
        field: arrays[fields[field]] for field in ("observations", "actions", "rewards", *_MARKS) if field in fields
    }
    rewards = read.get("rewards")
    if rewards is None or is_mapping(rewards) or rewards.ndim < 2:
        return None
    capacity, environments = rewards.shape[:2]
    counts = _written(rewards.reshape(capacity, environments, -1))
    is_full = bool((counts == capacity).all())
    head = _find_head(path, arrays, read) if is_full else 0
    order = [
        (np.arange(capacity) + head) % capacity * environments + env
        if is_full
        else ring_rows(capacity, int(count), int(count)) * environments + env
        for env, count in enumerate(counts.tolist())
    ]
    tree = {field: without_axis(value, f"{path}: {fields[field]}") for field, value in read.items()}
    return BufferContent(name=path, tree=tree, order=order)


def _written(rewards: NDArray[Any]) -> Rows:
    """Returns how many rows of each environment come before those that are NaN up to the end."""
    missing = np.isnan(rewards).all(axis=2) if rewards.dtype.kind == "f" else np.zeros(rewards.shape[:2], dtype=bool)
    return np.asarray(len(rewards) - np.cumprod(missing[::-1], axis=0).sum(axis=0), dtype=np.int64)


def _find_head(path: str, arrays: Mapping[str, Any], read: Mapping[str, Any]) -> int:
    """Returns the oldest row: the one that no step leads to, if next observations are stored.

    Raises:
        DatasetError: If it is not known.
    """
    key = next((name for name in NEXT_OBSERVATIONS if name in arrays), None)
    states = read["observations"]
    if key is not None and not is_mapping(arrays[key]) and np.shape(arrays[key]) == np.shape(states):
        head = find_seam(states, arrays[key], _ended(read, states.shape[:2]))
        if head is not None:
            return head
    raise DatasetError(
        f"{path} is a memory that is full, and the file does not hold which row is the oldest (memory_index). "
        f'{_NOT_WHOLE} If row 0 is the oldest: rlwandb_callbacks.open_dataset({{**numpy.load("….npz"), '
        '"memory_index": 0, "filled": True}).'
    )


def _ended(read: Mapping[str, Any], shape: tuple[int, ...]) -> Flags:
    ended = np.zeros(shape, dtype=bool)
    for field in _MARKS:
        if field in read and np.shape(read[field])[:2] == shape:
            ended |= np.asarray(read[field]).astype(bool).reshape(*shape, -1).any(axis=2)
    return ended
