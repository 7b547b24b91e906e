"""Values that hold named fields: dicts, named tuples, dataclasses, other objects; tuples by the order of entries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.formats.field_names import ALIASES, NEXT_OBSERVATIONS, has_required_fields

_ENDS = ((), ("done",), ("terminated", "truncated"))
# The number of ends and the place of the next observation, by the number of entries of a tuple.
_ORDERS: dict[int, tuple[int, int | None]] = {3: (0, None), 4: (1, None), 5: (1, 3), 6: (2, 3)}
_NAMES = (*(name for names in ALIASES.values() for name in names), *NEXT_OBSERVATIONS)


def is_mapping(value: Any) -> bool:
    """Returns whether a value is a dict or behaves like one, as TensorDicts do."""
    return hasattr(value, "keys") and hasattr(value, "__getitem__")


def is_record(value: Any) -> bool:
    """Returns whether a value has named fields."""
    return is_mapping(value) or hasattr(value, "_fields") or bool(_attributes(value))


def as_record(value: Any) -> Mapping[str, Any] | None:
    """Returns the fields of a transition, or of an episode, by name; None if it has none.

    Named tuples and objects are read by their names. Plain tuples have no names: 3 to 6 entries are read in their usual
    order, and the next observation is the entry that has the shape of the observation. The last one may be a dict of
    infos.

    Example:
        >>> as_record(([0.0, 1.0], 1, [0.5, 1.0], 2.0))
        {'obs': [0.0, 1.0], 'action': 1, 'next_obs': [0.5, 1.0], 'reward': 2.0}
    """
    if isinstance(value, dict):
        return value
    if is_mapping(value):  # a TensorDict iterates over its rows, not over its keys
        return {key: value[key] for key in tuple(value.keys())}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        entries = value[:-1] if len(value) > 3 and is_mapping(value[-1]) else value  # without info
        names = _names_by_order(entries)
        return None if names is None else dict(zip(names, entries, strict=True))
    return _attributes(value) or None


def _names_by_order(entries: tuple[Any, ...] | list[Any]) -> tuple[str, ...] | None:
    if len(entries) not in _ORDERS:
        return None
    ends, place = _ORDERS[len(entries)]
    shape = _shape(entries[0])
    if math.prod(shape) > 1 and len(entries) > 3:
        alike = [index for index in range(2, len(entries)) if _shape(entries[index]) == shape]
        if len(alike) == 1:
            ends, place = len(entries) - 4, alike[0]
        elif len(entries) == 5 and not alike and entries[3] is not None:
            ends, place = 2, None
    names = ["obs", "action", "reward", *_ENDS[ends]]
    if place is not None:
        names.insert(place, "next_obs")
    return tuple(names)


def _shape(entry: Any) -> tuple[int, ...]:
    try:
        return () if is_mapping(entry) else np.shape(entry)
    except ValueError:  # parts of different shapes
        return ()


def _attributes(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object that holds a transition; none of other objects."""
    if isinstance(value, (str, bytes, int, float, tuple, list, np.ndarray, np.generic)) or hasattr(value, "detach"):
        return {}
    found = _without_methods(getattr(value, "__dict__", {}))
    if not has_required_fields(found.keys()):  # properties, or slots
        found |= _without_methods({name: getattr(value, name) for name in _NAMES if hasattr(value, name)})
    return found if has_required_fields(found.keys()) else {}


def _without_methods(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in attributes.items() if not callable(item) and not name.startswith("_")}
