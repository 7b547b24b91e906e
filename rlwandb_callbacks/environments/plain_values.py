"""Plain values of attributes: those that can be compared and copied, and do not lead to an environment or a network."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

MAX_BYTES = 16 * 2**20  # of an array; larger ones are data
MAX_PARTS = 10_000  # of a value, which are compared one by one
MAX_DEPTH = 8
PYTHON_OBJECT_BYTES = object.__basicsize__ + 16  # of an instance with a `__dict__` and weak references
_SEQUENCES = (list, tuple, deque)
_SETS = (set, frozenset)
_SCALARS = (bool, int, float, complex, str, bytes, range, enum.Enum, np.generic, type(None))


def is_plain(value: Any) -> bool:
    """Returns whether a value is plain.

    Plain are numbers, texts, enums, arrays, functions without a closure, collections of plain values, and objects of
    classes written in Python whose attributes are plain, such as a config.

    Example:
        >>> is_plain({"level": 3, "speeds": [1.0, 2.0]}), is_plain(open), is_plain(np.random.default_rng(0))
        (True, False, False)
    """
    waiting = [(value, 0)]
    for count in range(MAX_PARTS):
        if not waiting:
            return True
        part, depth = waiting.pop()
        if _is_plain_leaf(part):
            continue
        inside = _parts(part)
        if inside is None or depth >= MAX_DEPTH or len(waiting) + len(inside) + count > MAX_PARTS:
            return False
        waiting += [(each, depth + 1) for each in inside]
    return False


def is_data(value: Any) -> bool:
    """Returns whether a plain value is a number, a text, an array, or a collection of these.

    Example:
        >>> is_data([1, "a"]), is_data(None), is_data({"viewer": None}), is_data(len)
        (True, False, False, False)
    """
    if isinstance(value, Mapping):
        return all(map(is_data, value.values()))
    if isinstance(value, (*_SEQUENCES, *_SETS)):
        return all(map(is_data, value))
    return value is not None and isinstance(value, (*_SCALARS, np.ndarray))


def _is_plain_leaf(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufcSUM" and value.nbytes <= MAX_BYTES
    return isinstance(value, _SCALARS) or (isinstance(value, FunctionType) and value.__closure__ is None)


def _parts(value: Any) -> list[Any] | None:
    """Returns the values that a value consists of; None if they are not known."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, (*_SEQUENCES, *_SETS)):
        return list(value)
    return list(vars(value).values()) if _has_only_attributes(value) else None


def _has_only_attributes(value: Any) -> bool:
    """Returns whether the whole state of an object is in its ``__dict__``."""
    cls = type(value)
    if isinstance(value, type | np.ndarray | gym.Env | VectorEnv | gym.Space) or callable(value):
        return False
    has_slots = any(vars(base).get("__slots__") for base in cls.__mro__)
    return hasattr(value, "__dict__") and cls.__basicsize__ <= PYTHON_OBJECT_BYTES and not has_slots


def are_equal(left: Any, right: Any) -> bool:
    """Returns whether two plain values have one type and are equal; NaN equals NaN."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(are_equal(left[key], right[key]) for key in left)
    if isinstance(left, _SEQUENCES):
        return len(left) == len(right) and _are_equal(left, right)
    if isinstance(left, np.ndarray | float | np.floating):
        is_float = np.asarray(left).dtype.kind in "fc"
        return np.array_equal(left, right, equal_nan=is_float)
    if isinstance(left, (*_SCALARS, *_SETS, FunctionType)):
        return bool(left == right)
    return are_equal(vars(left), vars(right))


def _are_equal(left: Iterable[Any], right: Iterable[Any]) -> bool:
    return all(are_equal(one, other) for one, other in zip(left, right, strict=True))
