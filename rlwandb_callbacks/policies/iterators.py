"""Iterators of Python as state: their positions, and copies that continue from there."""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

SETTABLE: frozenset[type[Any]] = frozenset(
    map(type, (iter([]), iter(()), iter(""), iter(b""), iter(np.zeros(0)), reversed([])))
)  # their position can be set
STATELESS: frozenset[type[Any]] = frozenset((zip, map, filter, itertools.starmap))
_OVER_ENTRIES = tuple(
    map(type, (iter({}), iter({}.values()), iter({}.items()), iter(set()), iter(deque()), iter(range(0))))
)
_NAMES = (
    "accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse islice "
    "permutations product repeat starmap takewhile zip_longest"
)
_OF_ITERTOOLS = (getattr(itertools, name) for name in _NAMES.split())
COPYABLE: frozenset[type[Any]] = frozenset((zip, map, filter, enumerate, *_OVER_ENTRIES, *_OF_ITERTOOLS))


def copied_iterator(value: Any) -> Any:
    """Returns a copy that continues where an iterator is, without advancing it; other values as they are.

    Iterators inside it are copied too. What they iterate over is shared.
    """
    if type(value) not in COPYABLE and type(value) not in SETTABLE:
        return value
    reduced = _reduced(value)
    if reduced is None:
        return value
    constructor, arguments, *states = reduced
    copy = constructor(*map(copied_iterator, arguments))
    for state in states:
        if state is not None:
            copy.__setstate__(_copied_state(state))
    return copy


def replaced_iterator(value: Any) -> Any:
    """Returns a copy of an iterator whose position cannot be set; other values as they are."""
    return copied_iterator(value) if type(value) in COPYABLE else value


def saved_position(value: Any) -> Callable[[], object] | None:
    """Returns a function that sets one of the ``SETTABLE`` iterators back; None for one that is exhausted."""
    state = value.__reduce__()[2:]
    return (lambda: value.__setstate__(*state)) if state else None


def iterators_inside(value: Any) -> tuple[Any, ...]:
    """Returns what an iterator combines, if it has no further state, so that it goes back when these are set back."""
    reduced = _reduced(value) if type(value) in STATELESS else None
    return () if reduced is None else tuple(reduced[1])


def position(value: Any) -> Any:
    """Returns a description of the position of an iterator; equal as long as it is not advanced."""
    if isinstance(value, bool | int | float | str | range | None):
        return value
    if type(value) in COPYABLE or type(value) in SETTABLE:
        reduced = _reduced(value)
        return None if reduced is None else position(tuple(reduced[1:]))
    if isinstance(value, tuple):
        return tuple(map(position, value))
    return len(value) if isinstance(value, list) else id(value)


def _copied_state(state: Any) -> Any:
    """Copies the state of a ``cycle``, which adds to its list, or a ``chain``, which has iterators."""
    if isinstance(state, tuple):
        return tuple(map(_copied_state, state))
    return list(state) if isinstance(state, list) else copied_iterator(state)


def _reduced(value: Any) -> tuple[Any, ...] | None:
    """Returns what ``copy.copy`` would rebuild an iterator from; None where Python does not support it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of itertools from Python 3.12 on
            reduced: tuple[Any, ...] = value.__reduce__()
    except TypeError:  # from Python 3.14 on
        return None
    return reduced
