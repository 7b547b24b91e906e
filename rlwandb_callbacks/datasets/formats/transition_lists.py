"""Transitions that come one by one, as dicts or tuples, stacked to one array per field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.formats.flat import REQUIRED, find_fields, missing_fields
from rlwandb_callbacks.datasets.formats.memory import as_array
from rlwandb_callbacks.errors import DatasetError

_MAX_INSPECTED = 1_000
_TUPLES = {
    3: ("obs", "action", "reward"),
    4: ("obs", "action", "reward", "done"),
    5: ("obs", "action", "reward", "next_obs", "done"),
    6: ("obs", "action", "reward", "next_obs", "terminated", "truncated"),
}


def is_mapping(value: Any) -> bool:
    """Returns whether a value is a dict or behaves like one, as TensorDicts do."""
    return isinstance(value, Mapping) or (hasattr(value, "keys") and hasattr(value, "__getitem__"))


def as_mapping(transition: Any, name: str) -> Mapping[str, Any]:
    """Returns the fields of a transition by name; the length of a tuple decides what its entries are.

    Raises:
        DatasetError: If it is neither a dict with observation, action and reward nor a tuple of 3 to 6 entries.

    Example:
        >>> sorted(as_mapping(([0.0], 1, 2.0, [0.5], True), "row 0"))
        ['action', 'done', 'next_obs', 'obs', 'reward']
    """
    if isinstance(transition, (tuple, list)) and len(transition) in _TUPLES:
        names = _TUPLES[len(transition)]
        if len(transition) == 4 and np.ndim(transition[3]) and np.shape(transition[3]) == np.shape(transition[0]):
            names = (*names[:3], "next_obs")
        return dict(zip(names, transition, strict=True))
    if is_mapping(transition):
        found: Mapping[str, Any] = transition
        keys = dict.fromkeys(found.keys())
        fields = find_fields(keys)
        missing = [field for field in REQUIRED if field not in fields]
        if missing:
            raise missing_fields(name, missing, tuple(map(str, keys)))
        return found
    raise DatasetError(
        f"{name} is a {type(transition).__name__}; allowed is a dict with keys such as obs, action, reward and "
        "done, or a tuple (s, a, r, s', done)."
    )


def to_arrays(records: Any, source: str) -> Mapping[str, Any]:
    """Stacks records to one array per field.

    Args:
        records: A dict of arrays, which is returned as it is; or a list of transitions, of lists of transitions, or of
            dicts with the arrays of one episode each.
        source: Name of the data set in messages.

    Raises:
        DatasetError: If it is something else, is empty, or rows have different shapes.
    """
    if isinstance(records, Mapping):
        return records
    if not isinstance(records, Sequence) or isinstance(records, (str, bytes)):
        raise DatasetError(
            f"{source} holds a {type(records).__name__}; allowed is a dict of arrays, a list of transitions, or a "
            "list of episodes."
        )
    if not len(records):
        raise DatasetError(f"{source} has zero transitions: its list is empty.")
    first = records[0]
    if isinstance(first, (list, tuple)) and len(first) and all(is_mapping(item) for item in first):
        return _stack_episodes(records, source)
    if is_mapping(first) and _are_episodes(records):
        return _join_episodes(records, source)
    return _stack_transitions(records, source)


def _are_episodes(items: Sequence[Any]) -> bool:
    """Returns whether dicts hold one episode each, by the first one that does not have exactly one row."""
    lengths = map(_episode_length, items[:_MAX_INSPECTED])
    return next((length for length in lengths if length != 1), -1) >= 0


def _episode_length(item: Any) -> int:
    """Returns the number of rewards if a dict holds as many actions, else -1."""
    fields = find_fields(dict.fromkeys(item.keys())) if is_mapping(item) else {}
    if not set(REQUIRED) <= set(fields):
        return -1
    rewards, actions = (np.shape(item[fields[field]]) for field in ("rewards", "actions"))
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
    names = find_fields(dict.fromkeys(items[0].keys())).values()
    return {
        name: _stack([_value(item, name, source, row) for row, item in enumerate(items)], f"{source}: {name}")
        for name in names
    }


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
    fields = find_fields(dict.fromkeys(items[0].keys()))
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
        if len(array) not in (length, length + 1):  # the observation after the last action may be stored too
            raise DatasetError(
                f"{name}: arrays of unequal length: {len(array)} rows in episode {index}, which has {length} rewards."
            )
        yield array[:length]
