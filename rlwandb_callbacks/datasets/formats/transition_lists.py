"""Transitions that come one by one, as dicts or tuples, stacked to one array per field."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.formats.field_names import (
    NEXT_OBSERVATIONS,
    REQUIRED,
    absent_fields,
    find_fields,
    looks_like_mark,
    missing_fields,
)
from rlwandb_callbacks.datasets.formats.memory import as_array
from rlwandb_callbacks.datasets.formats.records import as_record, is_mapping, is_record
from rlwandb_callbacks.errors import DatasetError

_MAX_INSPECTED = 1_000


def as_mapping(transition: Any, name: str) -> Mapping[str, Any]:
    """Returns the fields of a transition by name.

    Raises:
        DatasetError: If it has no observation, action or reward.

    Example:
        >>> sorted(as_mapping(([0.0], 1, 2.0, [0.5], True), "row 0"))
        ['action', 'done', 'next_obs', 'obs', 'reward']
    """
    found = as_record(transition)
    if found is None:
        raise DatasetError(
            f"{name} is a {type(transition).__name__}; allowed is a dict with keys such as obs, action, reward and "
            "done, a named tuple or an object with such attributes, or a tuple (s, a, r, s', done)."
        )
    if missing := absent_fields(found.keys()):
        raise missing_fields(name, missing, found.keys())
    return found


def to_arrays(records: Any, source: str) -> Mapping[str, Any]:
    """Stacks records to one array per field.

    Args:
        records: A dict of arrays, which is returned as it is; or a list of transitions, of lists of transitions, or of
            dicts with the arrays of one episode each. Transitions and episodes may also be named tuples or objects
            with attributes.
        source: Name of the data set in messages.

    Raises:
        DatasetError: If it is something else, is empty, or rows have different shapes.
    """
    if isinstance(records, Mapping):
        return records
    if is_record(records) and (found := as_record(records)) is not None:
        return found
    if not isinstance(records, Sequence) or isinstance(records, (str, bytes)):
        raise DatasetError(
            f"{source} holds a {type(records).__name__}; allowed is a dict of arrays, a list of transitions, or a "
            "list of episodes."
        )
    if not len(records):
        raise DatasetError(f"{source} has zero transitions: its list is empty.")
    items = list(records)
    first = next((item for item in items if not _is_list(item) or len(item)), items[0])
    if _is_list(first) and len(first) and all(map(_is_transition, first)):
        return _stack_episodes(items, source)
    if is_record(first) and _are_episodes(items):
        return _join_episodes(items, source)
    return _stack_transitions(items, source)


def _is_list(item: Any) -> bool:
    return isinstance(item, Sequence) and not is_record(item) and not isinstance(item, (str, bytes))


def _is_transition(item: Any) -> bool:
    """Returns whether an entry of a list is a transition, and not an observation, an action or another part of one."""
    return is_record(item) or (isinstance(item, (tuple, list)) and as_record(item) is not None)


def _are_episodes(items: Sequence[Any]) -> bool:
    """Returns whether records hold one episode each, by the first one that does not have exactly one row."""
    lengths = map(_episode_length, items[:_MAX_INSPECTED])
    return next((length for length in lengths if length != 1), -1) >= 0


def _episode_length(item: Any) -> int:
    """Returns the number of rewards if a record holds as many actions, else -1."""
    record = as_record(item) if is_record(item) else None
    fields = {} if record is None else find_fields(record.keys())
    if record is None or not set(REQUIRED) <= set(fields):
        return -1
    rewards, actions = (np.shape(record[fields[field]]) for field in ("rewards", "actions"))
    return int(rewards[0]) if rewards and actions and actions[0] == rewards[0] else -1


def _stack_episodes(episodes: Sequence[Any], source: str) -> dict[str, Any]:
    columns = _stack_transitions([transition for episode in episodes for transition in episode], source)
    return columns | {"episode_ends": _ends([len(episode) for episode in episodes])}


def _ends(lengths: list[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    ends = np.zeros(sum(lengths), dtype=bool)
    ends[np.cumsum([length for length in lengths if length], dtype=np.int64) - 1] = True
    return ends


def _stack_transitions(transitions: Sequence[Any], source: str) -> dict[str, Any]:
    items = [as_mapping(item, f"{source}: transition {index}") for index, item in enumerate(transitions)]
    fields = find_fields(items[0].keys())
    columns = {
        name: _stack([_value(item, name, source, row) for row, item in enumerate(items)], f"{source}: {name}")
        for name in fields.values()
    }
    if set(fields) == set(REQUIRED):
        columns |= _ends_by_next_observation(items, fields["observations"])
    return _unread(items[0], columns) | _without_batch_axis(columns, fields)


def _unread(item: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, None]:
    """Returns the keys that look like marks and are not read, so that they are reported, without values."""
    return dict.fromkeys(key for key in map(str, item) if key not in read and looks_like_mark(key))


def _ends_by_next_observation(items: Sequence[Mapping[str, Any]], observation: str) -> dict[str, Any]:
    """Returns marks of transitions that have none: their next observation is None after a terminal state.

    That of any other last transition is not the observation of the transition that follows. If it hardly ever is, the
    transitions are not in order, and episodes cannot be told.
    """
    name = next((key for key in NEXT_OBSERVATIONS if key in items[0]), None)
    if name is None or is_mapping(items[0][observation]):
        return {}
    terminals = np.array([item.get(name) is None for item in items])
    follows = [
        item.get(name) is None or _are_equal(item[name], after[observation])
        for item, after in itertools.pairwise(items)
    ]
    breaks = ~np.array([*follows, True], dtype=bool)  # the last episode may be open
    found = {"terminals": terminals} if terminals.any() else {}
    is_ordered = np.count_nonzero(breaks) <= len(items) / 2
    return found | ({"episode_ends": terminals | breaks} if is_ordered and breaks.any() else {})


def _are_equal(first: Any, second: Any) -> bool:
    return np.array_equal(as_array(first, "next observation"), as_array(second, "observation"))


def _without_batch_axis(columns: dict[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """Drops the axis of a batch of one, which tensors have that were stored as a network takes them."""
    arrays = [columns[fields[field]] for field in ("observations", "actions")]
    if not all(isinstance(array, np.ndarray) and array.ndim > 2 and array.shape[1] == 1 for array in arrays):
        return columns
    return columns | {fields[field]: columns[fields[field]][:, 0] for field in ("observations", "actions")}


def _value(item: Mapping[str, Any], name: str, source: str, row: int) -> Any:
    if name not in item:
        raise DatasetError(f"{source}: transition {row} has no {name}, which the first transition has.")
    return item[name]


def _stack(values: list[Any], name: str) -> Any:
    if is_mapping(values[0]):
        return {key: _stack([value[key] for value in values], f"{name}/{key}") for key in values[0]}
    arrays = [as_array(value, name) for value in values]
    other = next((row for row, array in enumerate(arrays) if array.shape != arrays[0].shape), None)
    if other is not None:
        raise DatasetError(
            f"{name} has shape {arrays[other].shape} in transition {other} and {arrays[0].shape} in transition 0; "
            "allowed is one shape for all transitions."
        )
    return np.stack(arrays)


def _join_episodes(episodes: Sequence[Any], source: str) -> dict[str, Any]:
    items = [as_mapping(item, f"{source}: episode {index}") for index, item in enumerate(episodes)]
    fields = find_fields(items[0].keys())
    lengths = [len(_value(item, fields["rewards"], source, row)) for row, item in enumerate(items)]
    columns = {
        name: _join([_value(item, name, source, row) for row, item in enumerate(items)], lengths, f"{source}: {name}")
        for name in fields.values()
    }
    return columns | {"episode_ends": _ends(lengths)}


def _join(values: list[Any], lengths: list[int], name: str) -> Any:
    if is_mapping(values[0]):
        return {key: _join([value[key] for value in values], lengths, f"{name}/{key}") for key in values[0]}
    return np.concatenate(list(_episode_rows(values, lengths, name)))


def _episode_rows(values: list[Any], lengths: list[int], name: str) -> Iterator[np.ndarray[Any, np.dtype[Any]]]:
    for index, (value, length) in enumerate(zip(values, lengths, strict=True)):
        array = as_array(value, name)
        if array.ndim == 0:  # one mark for the whole episode
            array = np.where(np.arange(length) == length - 1, array, np.zeros_like(array))
        if len(array) not in (length, length + 1):  # the observation after the last action may be stored too
            raise DatasetError(
                f"{name}: arrays of unequal length: {len(array)} rows in episode {index}, which has {length} rewards."
            )
        yield array[:length]
