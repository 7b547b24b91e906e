"""Attributes that a user has set in an environment after it was made, so that copies have them too."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from rlwandb_callbacks.environments.closing import closing

# Attributes of one object, and seeds, which a copy must not take over.
OWN = ("render_mode", "spec", "isopen", "closed", "_closed", "is_closed", "_np_random_seed", "np_random_seed")


def changed_attributes(env: Any, make: Callable[[], Any]) -> dict[str, Any]:
    """Returns copies of the plain attributes in which an environment differs from new ones, which ``make`` makes.

    Two new environments are open at once. An attribute in which these differ belongs to the one object, such as the
    identifier of a simulator, a port or a temporary folder, and is left out. So is the state of an episode: attributes
    that ``reset`` or ``step`` change. Plain are numbers, texts, arrays, and lists and dicts of them. There are none if
    ``make`` fails.
    """
    states: list[dict[str, Any]] = []
    with contextlib.suppress(Exception), closing(make()) as new, closing(make()) as other:
        states += [_plain_attributes(new), _plain_attributes(other)]
        new.reset(seed=0)
        states.append(_plain_attributes(new))
        new.action_space.seed(0)
        new.step(new.action_space.sample())
        states.append(_plain_attributes(new))
    if len(states) < 4:  # of both, after a reset, and after a step
        return {}
    first, *others = states
    constant = {name for name in first if all(_has(state, name, first[name]) for state in others)}
    variable = {name for state in states for name in state} - constant
    return {
        name: value
        for name, value in _plain_attributes(env).items()
        if name not in variable and not _has(first, name, value)
    }


def _has(attributes: dict[str, Any], name: str, value: Any) -> bool:
    return name in attributes and _are_equal(attributes[name], value)


def _plain_attributes(env: Any) -> dict[str, Any]:
    found = {name: value for name, value in vars(env).items() if name not in OWN and _is_plain(value)}
    return copy.deepcopy(found)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufSU"
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def _are_equal(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_are_equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_are_equal, left, right))
    if isinstance(left, np.ndarray | float | np.floating):
        is_float = np.asarray(left).dtype.kind == "f"
        return np.array_equal(left, right, equal_nan=is_float)
    return bool(left == right)
