"""Transitions that come one by one, as dicts or tuples, brought into columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.formats.flat import ALIASES, REQUIRED, find_roles
from rlwandb_callbacks.datasets.formats.memory import as_array
from rlwandb_callbacks.errors import DatasetError

MAX_LOOKED_AT = 1_000
_TUPLES = {
    3: ("obs", "action", "reward"),
    4: ("obs", "action", "reward", "done"),
    5: ("obs", "action", "reward", "next_obs", "done"),
    6: ("obs", "action", "reward", "next_obs", "terminated", "truncated"),
}


def is_mapping(value: Any) -> bool:
    """Whether a value is a dict or behaves like one, as TensorDicts do."""
    return isinstance(value, Mapping) or (hasattr(value, "keys") and hasattr(value, "__getitem__"))


def named(transition: Any, place: str) -> Mapping[str, Any]:
    """A transition by names, which tuples have by their length.

    Raises:
        DatasetError: If it is neither a dict with observation, action and reward nor a tuple of 3 to 6.

    Example:
        >>> sorted(named(([0.0], 1, 2.0, [0.5], True), "row 0"))
        ['action', 'done', 'next_obs', 'obs', 'reward']
    """
    if isinstance(transition, (tuple, list)) and len(transition) in _TUPLES:
        names = _TUPLES[len(transition)]
        if len(transition) == 4 and np.ndim(transition[3]) and np.shape(transition[3]) == np.shape(transition[0]):
            names = (*names[:3], "next_obs")
        return dict(zip(names, transition, strict=True))
    if is_mapping(transition):
        found: Mapping[str, Any] = transition
        roles = find_roles(dict.fromkeys(found.keys()))
        missing = [role for role in REQUIRED if role not in roles]
        if not missing:
            return found
        raise DatasetError(
            f"{place} has no {' and no '.join(missing)}. Keys found: {', '.join(map(str, found.keys())) or 'none'}. "
            f"Allowed are {'; '.join(f'for {role}: ' + ', '.join(ALIASES[role]) for role in missing)}."
        )
    raise DatasetError(
        f"{place} is a {type(transition).__name__}; allowed is a dict with keys such as obs, action, reward and "
        "done, or a tuple (s, a, r, s', done)."
    )


def columns_from(found: Any, source: str) -> Mapping[str, Any]:
    """Arrays by name from what a pickle may hold.

    Args:
        found: A dict of arrays; or a list of transitions, of lists of transitions, or of dicts of arrays per episode.
        source: What to call it in messages.

    Raises:
        DatasetError: If it is none of these, is empty, or rows have different shapes.
    """
    if isinstance(found, Mapping):
        return found
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
        raise DatasetError(
            f"{source} holds a {type(found).__name__}; allowed is a dict of arrays, a list of transitions, or a "
            "list of episodes."
        )
    if not len(found):
        raise DatasetError(f"{source} has zero transitions: its list is empty.")
    first = found[0]
    if isinstance(first, (list, tuple)) and len(first) and all(is_mapping(item) for item in first):
        return _stacked_episodes(found, source)
    if is_mapping(first) and _are_episodes(found):
        return _joined_episodes(found, source)
    return _stacked(found, source)


def _are_episodes(items: Sequence[Any]) -> bool:
    """Whether dicts hold an episode each: the first one that has more or less than one row of each array tells."""
    lengths = map(_steps_of, items[:MAX_LOOKED_AT])
    return next((length for length in lengths if length != 1), -1) >= 0


def _steps_of(item: Any) -> int:
    """How many rewards a dict holds, with as many actions; -1 where it is a transition or no such dict."""
    roles = find_roles(dict.fromkeys(item.keys())) if is_mapping(item) else {}
    if not set(REQUIRED) <= set(roles):
        return -1
    rewards, actions = (np.shape(item[roles[role]]) for role in ("rewards", "actions"))
    return int(rewards[0]) if rewards and actions and actions[0] == rewards[0] else -1


def _stacked_episodes(episodes: Sequence[Any], source: str) -> dict[str, Any]:
    kept = [episode for episode in episodes if len(episode)]
    columns = _stacked([transition for episode in kept for transition in episode], source)
    ends = np.zeros(sum(map(len, kept)), dtype=bool)
    ends[np.cumsum([len(episode) for episode in kept]) - 1] = True
    return columns | {"episode_ends": ends}


def _stacked(transitions: Sequence[Any], source: str) -> dict[str, Any]:
    items = [named(item, f"{source}: transition {index}") for index, item in enumerate(transitions)]
    names = find_roles(dict.fromkeys(items[0].keys())).values()
    return {
        name: _stack([_value(item, name, source, row) for row, item in enumerate(items)], f"{source}: {name}")
        for name in names
    }


def _value(item: Mapping[str, Any], name: str, source: str, row: int) -> Any:
    if name not in item:
        raise DatasetError(f"{source}: transition {row} has no {name}, which the first transition has.")
    return item[name]


def _stack(values: list[Any], place: str) -> Any:
    if is_mapping(values[0]):
        return {key: _stack([value[key] for value in values], f"{place}/{key}") for key in values[0]}
    arrays = [as_array(value, place) for value in values]
    odd = next((row for row, array in enumerate(arrays) if array.shape != arrays[0].shape), None)
    if odd is not None:
        raise DatasetError(
            f"{place} has shape {arrays[odd].shape} in transition {odd} and {arrays[0].shape} in transition 0; "
            "allowed is one shape for all."
        )
    return np.stack(arrays)


def _joined_episodes(episodes: Sequence[Any], source: str) -> dict[str, Any]:
    items = [named(item, f"{source}: episode {index}") for index, item in enumerate(episodes)]
    roles = find_roles(dict.fromkeys(items[0].keys()))
    lengths = [len(_value(item, roles["rewards"], source, row)) for row, item in enumerate(items)]
    columns = {
        name: _join([_value(item, name, source, row) for row, item in enumerate(items)], lengths, f"{source}: {name}")
        for name in roles.values()
    }
    ends = np.zeros(sum(lengths), dtype=bool)
    ends[np.cumsum([length for length in lengths if length]) - 1] = True
    return columns | {"episode_ends": ends}


def _join(values: list[Any], lengths: list[int], place: str) -> Any:
    if is_mapping(values[0]):
        return {key: _join([value[key] for value in values], lengths, f"{place}/{key}") for key in values[0]}
    return np.concatenate(list(_rows_of(values, lengths, place)))


def _rows_of(values: list[Any], lengths: list[int], place: str) -> Iterator[np.ndarray[Any, np.dtype[Any]]]:
    for index, (value, length) in enumerate(zip(values, lengths, strict=True)):
        array = as_array(value, place)
        if len(array) not in (length, length + 1):  # the state after the last action may be there
            raise DatasetError(
                f"{place}: arrays of unequal length: {len(array)} rows in episode {index}, which has {length} rewards."
            )
        yield array[:length]
