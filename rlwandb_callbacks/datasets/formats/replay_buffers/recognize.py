"""Finds out whether an object is a replay buffer, by its attributes rather than its class."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.columns import ArrayColumn
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.field_names import NEXT_OBSERVATIONS, REQUIRED, find_fields
from rlwandb_callbacks.datasets.formats.memory import as_array, open_arrays
from rlwandb_callbacks.datasets.formats.records import is_mapping, is_record
from rlwandb_callbacks.datasets.formats.replay_buffers.fill import StoredRows
from rlwandb_callbacks.datasets.formats.replay_buffers.names import find_number
from rlwandb_callbacks.datasets.formats.replay_buffers.positions import find_positions
from rlwandb_callbacks.datasets.formats.replay_buffers.ring import (
    BufferContent,
    columns_of,
    find_seam,
    open_content,
    ring_rows,
)
from rlwandb_callbacks.datasets.formats.replay_buffers.tianshou import find_tianshou
from rlwandb_callbacks.datasets.formats.replay_buffers.torchrl import batch_content, find_torchrl, has_next
from rlwandb_callbacks.datasets.formats.transition_lists import to_arrays
from rlwandb_callbacks.datasets.unwritten_rows import MIN_RUN
from rlwandb_callbacks.errors import DatasetError

_LISTS = ("memory", "_storage", "storage", "buffer", "_buffer", "data")
_CAPACITIES = ("capacity", "_maxsize", "maxsize", "max_size", "buffer_size", "memory_size", "size")
# Marks of rows, and their value at the end of an episode.
_ENDED = {
    "terminals": True, "timeouts": True, "dones": True, "continues": False, "masks": False, "discounts": False,
}  # fmt: skip
_WRAPPED = (
    "Only the step before row {head:,} does not lead to the row after it, although no end is marked there, as in front "
    "of the oldest row of a buffer that was full. The data are read from row {head:,} on, and then from row 0."
)
_UNWRITTEN = (
    "{rows:,} of {count:,} rows were never written, and were left out: the step before row {head:,} does not lead to "
    "it, and from there on all observations, actions and rewards are 0."
)
_MAX_SEARCHED_BYTES = 2 * 2**30  # of observations; a search takes about a second per GiB
_CPPRB = ("get_all_transitions", "get_next_index", "get_stored_size", "get_buffer_size")


def open_replay_buffer(source: Any) -> OfflineDataset | None:
    """Opens a replay buffer that is in memory; returns None for anything else.

    Read are buffers of tianshou, Stable-Baselines3, TorchRL, skrl, cpprb and d3rlpy, and others with the same kind of
    attributes: arrays with a position and a fill level, or a list with a position. A mapping of the attributes, as of
    ``vars(buffer)``, is read like the buffer. Rows that are written later change what was opened.

    Raises:
        DatasetError: If it is such a buffer, and its rows cannot be read in the order of time.
    """
    content = _find(source)
    return None if content is None else open_content(content)


def _find(source: Any) -> BufferContent | None:
    name = "the buffer" if isinstance(source, Mapping) else type(source).__name__
    if has_next(source):
        return batch_content(source, name)
    attributes = _attributes(source)
    for find in (find_tianshou, find_torchrl, find_positions, _find_list, _find_wrapped):
        if attributes and (content := find(attributes, name)) is not None:
            return content
    return _find_cpprb(source, name) or _find_episodes(source, name)


def _attributes(source: Any) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return {str(key): source[key] for key in tuple(source.keys())}
    if isinstance(source, (str, bytes, tuple, list, np.ndarray, np.generic, type)) or hasattr(source, "detach"):
        return {}
    slots = [name for kind in type(source).__mro__ for name in getattr(kind, "__slots__", ())]
    return {name: getattr(source, name) for name in slots if hasattr(source, name)} | getattr(source, "__dict__", {})


def _find_wrapped(attributes: Mapping[str, Any], name: str) -> BufferContent | None:
    """Returns arrays of a ring that was full, if their next observations show where its oldest row is."""
    fields = find_fields(attributes)
    key = next((key for key in NEXT_OBSERVATIONS if key in attributes), None)
    if key is None or not {*REQUIRED} <= set(fields) or {*fields} - {*REQUIRED, *_ENDED}:
        return None
    arrays = [attributes[key], *(attributes[key] for key in fields.values())]
    if not all(isinstance(array, np.ndarray) or hasattr(array, "detach") for array in arrays):
        return None
    after, states = (as_array(array, name) for array in arrays[:2])
    marks = {field: as_array(attributes[fields[field]], name) for field in _ENDED if field in fields}
    count = len(states) if states.ndim else 0
    shapes = {mark.shape for mark in marks.values()}
    if after.shape != states.shape or count < 3 or shapes - {(count,), (count, 1)}:
        return None
    if states.nbytes > _MAX_SEARCHED_BYTES:
        return None
    ended = [mark.reshape(-1).astype(bool) == _ENDED[field] for field, mark in marks.items()]
    is_end = np.any([np.zeros(count, dtype=bool), *ended], axis=0)
    if not is_end[-1] and (after[-1] != states[0]).any():  # two breaks, or none inside
        return None
    head = find_seam(states, after, is_end)
    if not head:
        return None
    tree = {name: columns_of(attributes[name], name) for name in fields.values()}
    is_full, warning = True, _WRAPPED.format(head=head)
    if StoredRows(attributes, fields).are_empty(head):
        if count - head < MIN_RUN:
            return None
        is_full, warning = False, _UNWRITTEN.format(head=head, rows=count - head, count=count)
    order = [ring_rows(count, head, count if is_full else head)]
    warnings = (warning,)
    return BufferContent(name=name, tree=tree, order=order, warnings=warnings, has_next_observations=True)


def _find_list(attributes: Mapping[str, Any], name: str) -> BufferContent | None:
    """Returns the content of a deque of transitions, or of a list that is overwritten from its beginning when full."""
    lists = (attributes.get(key) for key in _LISTS)
    found = next((rows for rows in lists if isinstance(rows, (list, deque)) and rows), None)
    if found is None or not all(map(_is_transition, found)):
        return None
    start = 0
    if isinstance(found, list):  # a deque is in the order of time
        head, capacity = find_number(attributes), find_number(attributes, _CAPACITIES)
        if head is None or capacity is None:
            return None
        start = head[1] % len(found) if len(found) >= capacity[1] else 0
    rows = list(found)
    arrays = to_arrays([*rows[start:], *rows[:start]], name)
    with open_arrays(arrays, name):  # checks them
        fields = find_fields(arrays)
    tree = {key: columns_of(arrays[key], f"{name}: {key}") for key in fields.values()}
    return BufferContent(name=name, tree=tree, order=[np.arange(len(found), dtype=np.int64)])


def _is_transition(item: Any) -> bool:
    return isinstance(item, tuple) or is_record(item)


def _find_cpprb(source: Any, name: str) -> BufferContent | None:
    """Returns the content of a buffer of cpprb, whose arrays are read by its methods."""
    if not all(callable(getattr(source, method, None)) for method in _CPPRB):
        return None
    count, capacity = int(source.get_stored_size()), int(source.get_buffer_size())
    if not count:
        raise DatasetError(f"{name} has zero transitions: nothing was written to the buffer.")
    if callable(getattr(source, "is_Nstep", None)) and source.is_Nstep():
        raise DatasetError(
            f"{name} sums the rewards of several steps (Nstep), so that its rewards are not those of single steps. "
            "Give a buffer without Nstep."
        )
    arrays = source.get_all_transitions()
    head = int(source.get_next_index()) if count >= capacity else count
    return find_positions({**arrays, "pos": head, "full": count >= capacity}, name)


def _find_episodes(source: Any, name: str) -> BufferContent | None:
    """Returns the content of a buffer of d3rlpy: a list of episodes, with one mark each of a terminal state."""
    episodes = getattr(source, "episodes", None) if hasattr(source, "dataset_info") else None
    if not isinstance(episodes, (list, tuple)):
        return None
    if not episodes:
        raise DatasetError(f"{name} has zero transitions: it has no episodes.")
    lengths = [len(episode.rewards) for episode in episodes]
    ends = np.cumsum(lengths) - 1
    terminals = np.zeros(int(ends[-1]) + 1, dtype=bool)
    terminals[ends] = [bool(episode.terminated) for episode in episodes]
    tree = {
        "observations": columns_of(_joined([episode.observations for episode in episodes]), f"{name}: observations"),
        "actions": columns_of(_joined([episode.actions for episode in episodes]), f"{name}: actions"),
        "rewards": columns_of(_joined([episode.rewards for episode in episodes]), f"{name}: rewards"),
        "terminals": ArrayColumn(terminals),
    }
    order = [end - length + 1 + np.arange(length) for end, length in zip(ends, lengths, strict=True)]
    return BufferContent(name=name, tree=tree, order=order)


def _joined(values: list[Any]) -> Any:
    """Joins the arrays of all episodes; an observation may be a list of arrays."""
    if isinstance(values[0], (list, tuple)):
        return {str(part): np.concatenate([value[part] for value in values]) for part in range(len(values[0]))}
    if is_mapping(values[0]):
        return {str(key): np.concatenate([value[key] for value in values]) for key in values[0]}
    return np.concatenate(values)
