"""Turns what a policy gave as actions into a batch that an environment takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from rlwandb_callbacks.policies.output_discrete import Choices
from rlwandb_callbacks.policies.output_tensors import to_numpy

_Compound: TypeAlias = "spaces.Dict | spaces.Tuple[Any]"


def batch_of_actions(space: Space[Any], given: Any, batch_size: int) -> Any:
    """Reads actions for B states.

    Args:
        space: Of one environment.
        given: A tensor or array ``[B, ...]``: numbers of options or one-hot for finite spaces, values for ``Box``,
            which are clipped to its bounds. For ``Dict`` and ``Tuple`` spaces such a batch for each part, in the same
            form, or a list of B actions.
        batch_size: B.

    Returns:
        An array of the space's type, ``Dict`` and ``Tuple`` of them, or None where they are no such actions.

    Example:
        >>> batch_of_actions(spaces.Box(-1, 1, (1,)), np.array([[0.5], [7.0]]), 2).tolist()
        [[0.5], [1.0]]
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        found = _parts(space, given, batch_size)
        return _from_rows(space, given, batch_size) if found is None else found
    try:
        array = to_numpy(given)
    except (TypeError, ValueError, RuntimeError):
        return None
    choices = Choices.of(space)
    if choices is not None:
        return _options(choices, array, batch_size)
    if not isinstance(space, spaces.Box) or array.shape != (batch_size, *space.shape) or array.dtype.kind not in "biuf":
        return None
    return np.clip(array, space.low, space.high).astype(space.dtype)


def _options(choices: Choices, array: Any, batch_size: int) -> Any:
    one_hot = choices.from_one_hot(array, batch_size) if not choices.are_switches else None
    if one_hot is not None and (choices.is_single or array.shape != (batch_size, *choices.shape)):
        return one_hot
    if choices.is_single:
        is_index = array.shape in ((batch_size,), (batch_size, 1)) and array.dtype.kind in "iu"
        return array.reshape(batch_size).astype(np.int64) if is_index else None
    is_whole = array.dtype.kind in "biu" or (array.dtype.kind == "f" and np.array_equal(array, np.rint(array)))
    return array.astype(choices.dtype) if is_whole and array.shape == (batch_size, *choices.shape) else None


def first_outside(space: Space[Any], actions: Any) -> tuple[Space[Any], Any] | None:
    """Looks for an action that is none of a finite space's options, also where that is part of ``Dict`` or ``Tuple``.

    Args:
        space: Of one environment.
        actions: A batch ``[B, ...]``; for ``Dict`` and ``Tuple`` spaces such arrays in a dict or tuple.

    Returns:
        The finite space and the first such action; None where there is none, or the actions have another form.

    Example:
        >>> space, action = first_outside(spaces.Discrete(3, start=5), np.array([5, 2]))
        >>> print(space, action)
        Discrete(3, start=5) 2
    """
    if isinstance(space, spaces.Dict) and isinstance(actions, Mapping):
        parts = [first_outside(part, actions[key]) for key, part in space.spaces.items() if key in actions]
        return next((found for found in parts if found is not None), None)
    if isinstance(space, spaces.Tuple) and isinstance(actions, tuple | list):
        parts = [first_outside(part, entry) for part, entry in zip(space, actions, strict=False)]
        return next((found for found in parts if found is not None), None)
    choices, array = Choices.of(space), np.asarray(actions)
    if choices is None or array.dtype.kind not in "biuf" or array.size != len(array) * len(choices.sizes):
        return None
    lacking = ~choices.hold(array)
    return (space, array[lacking.argmax()]) if lacking.any() else None


def _parts(space: _Compound, given: Any, batch_size: int) -> Any:
    if isinstance(space, spaces.Dict):
        if not isinstance(given, Mapping) or any(key not in given for key in space.spaces):
            return None
        parts = {key: batch_of_actions(part, given[key], batch_size) for key, part in space.spaces.items()}
        return None if any(part is None for part in parts.values()) else parts
    if not isinstance(given, tuple | list) or len(given) != len(space.spaces):
        return None
    entries = tuple(batch_of_actions(part, entry, batch_size) for part, entry in zip(space, given, strict=True))
    return None if any(entry is None for entry in entries) else entries


def _from_rows(space: _Compound, given: Any, batch_size: int) -> Any:
    if not isinstance(given, tuple | list) or len(given) != batch_size or not all(map(space.contains, given)):
        return None
    empty: Any = create_empty_array(space, n=batch_size)
    return concatenate(space, given, empty)
