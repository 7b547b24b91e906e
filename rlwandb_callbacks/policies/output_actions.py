"""Converts the actions that a policy outputs to a batch that an environment takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import Space, spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray

from rlwandb_callbacks.policies.output_discrete import CategoricalSpace
from rlwandb_callbacks.policies.output_tensors import is_array, to_numpy

_Compound: TypeAlias = "spaces.Dict | spaces.Tuple[Any]"


def action_batch(
    space: Space[Any], output: Any, batch_size: int, observe: Callable[[spaces.Box, NDArray[Any]], object] | None = None
) -> Any:
    """Converts B actions to an array of the space's dtype; returns None if the output has another form.

    Finite spaces take integers or one-hot vectors, ``Box`` takes values, which are clipped to its bounds. ``Dict`` and
    ``Tuple`` spaces take a batch per part, in the same structure, or a list of B actions, and give a dict or tuple of
    arrays.

    ``observe`` is called with each ``Box`` and its actions before they are clipped; those of a list of B actions are in
    the bounds already.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        actions = _from_parts(space, output, batch_size, observe)
        return _from_rows(space, output, batch_size) if actions is None else actions
    if isinstance(output, list) and output and all(map(is_array, output)):  # the actions of B environments
        shapes = {tuple(action.shape) for action in output}
        if shapes == {(batch_size,)} == {space.shape} and isinstance(output[0], torch.Tensor):
            return None  # may as well be a tensor [B] for each dimension
        output = np.stack(list(map(to_numpy, output))) if shapes == {space.shape} else output
    try:
        array = to_numpy(output)
    except (TypeError, ValueError, RuntimeError):
        return None
    categorical = CategoricalSpace.from_space(space)
    if categorical is not None:
        return _finite_actions(categorical, array, batch_size)
    if not isinstance(space, spaces.Box) or array.shape != (batch_size, *space.shape) or array.dtype.kind not in "biuf":
        return None
    if observe is not None:
        observe(space, array)
    return np.clip(array, space.low, space.high).astype(space.dtype)


def _finite_actions(space: CategoricalSpace, array: Any, batch_size: int) -> Any:
    has_action_shape = array.shape == (batch_size, *space.shape)
    one_hot = None if space.is_binary else space.from_one_hot(array, batch_size)
    if one_hot is not None and (space.is_single or not has_action_shape):
        return one_hot
    if space.is_single:
        is_index = array.shape in ((batch_size,), (batch_size, 1)) and array.dtype.kind in "iu"
        return array.reshape(batch_size).astype(np.int64) if is_index else None
    is_integral = array.dtype.kind in "biu" or (array.dtype.kind == "f" and np.array_equal(array, np.rint(array)))
    return array.astype(space.dtype) if is_integral and has_action_shape else None


def first_invalid_action(space: Space[Any], actions: Any) -> tuple[Space[Any], Any] | None:
    """Finds a finite space and the first of B actions that is not in it, also inside ``Dict`` and ``Tuple`` spaces.

    Returns None if all actions are valid or have another form.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        present = actions if isinstance(actions, Mapping) else dict(enumerate(actions))
        invalid = (first_invalid_action(part, present[key]) for key, part in parts if key in present)
        return next((found for found in invalid if found is not None), None)
    categorical, array = CategoricalSpace.from_space(space), np.asarray(actions)
    if categorical is None or array.dtype.kind not in "biuf" or array.size != len(array) * len(categorical.sizes):
        return None
    is_invalid = ~categorical.contains(array)
    return (space, array[is_invalid.argmax()]) if is_invalid.any() else None


def _pairs(space: _Compound, output: Any) -> list[tuple[Space[Any], Any]] | None:
    """Pairs each part of a compound space with its part of the output; None if the structures differ."""
    if isinstance(space, spaces.Dict):
        is_complete = isinstance(output, Mapping) and all(key in output for key in space.spaces)
        return [(part, output[key]) for key, part in space.spaces.items()] if is_complete else None
    is_complete = isinstance(output, tuple | list) and len(output) == len(space.spaces)
    return list(zip(space.spaces, output, strict=True)) if is_complete else None


def _from_parts(
    space: _Compound, output: Any, batch_size: int, observe: Callable[[spaces.Box, NDArray[Any]], object] | None
) -> Any:
    pairs = _pairs(space, output)
    parts = [action_batch(part, values, batch_size, observe) for part, values in pairs or ()]
    if pairs is None or any(part is None for part in parts):
        return None
    return dict(zip(space.spaces, parts, strict=True)) if isinstance(space, spaces.Dict) else tuple(parts)


def _from_rows(space: _Compound, output: Any, batch_size: int) -> Any:
    if not isinstance(output, tuple | list) or len(output) != batch_size or not all(map(space.contains, output)):
        return None
    empty: Any = create_empty_array(space, n=batch_size)
    return concatenate(space, output, empty)
