"""Buffers of arrays with a position and a fill level: Stable-Baselines3, skrl, and most that are written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.columns import ArrayColumn, Column, Rows
from rlwandb_callbacks.datasets.formats.field_names import NEXT_OBSERVATIONS, REQUIRED, find_fields, has_required_fields
from rlwandb_callbacks.datasets.formats.flat import Tree
from rlwandb_callbacks.datasets.formats.memory import as_array
from rlwandb_callbacks.datasets.formats.records import is_mapping
from rlwandb_callbacks.datasets.formats.replay_buffers.fill import Fill, find_fill
from rlwandb_callbacks.datasets.formats.replay_buffers.names import ENVIRONMENTS, FULL, ROLLOUT, find_number, usual_name
from rlwandb_callbacks.datasets.formats.replay_buffers.ring import (
    OVERWRITTEN,
    BufferContent,
    columns_of,
    ring_rows,
    without_axis,
)
from rlwandb_callbacks.errors import DatasetError

_MARKS = ("terminals", "timeouts", "dones", "continues", "masks", "discounts")
_NO_RETURNS = (
    "is a rollout buffer of Stable-Baselines3: its rewards contain value estimates where a time limit ended an "
    "episode, so that their sums are no returns, and after learn() its arrays are in two orders. Give the replay "
    "buffer of an off-policy algorithm, or record the transitions while they are played."
)


def find_positions(attributes: Mapping[str, Any], name: str) -> BufferContent | None:
    """Returns the content of a buffer with arrays, a position and a fill level; None of anything else.

    Args:
        attributes: Attributes of the buffer, or a mapping of the same.
        name: Name of the buffer in messages.

    Raises:
        DatasetError: If position and fill level contradict each other or the arrays, or it is a rollout buffer.
    """
    arrays = _arrays(attributes)
    fields = find_fields(arrays)
    if not set(REQUIRED) <= set(fields):
        return None
    if set(arrays) >= ROLLOUT and find_number(attributes) and find_number(attributes, FULL):
        raise DatasetError(f"{name} {_NO_RETURNS}")
    try:
        fill = find_fill(attributes, arrays, fields)
    except DatasetError as error:
        raise DatasetError(f"{name}: {error}") from None
    if fill is None:
        return None
    read = {field: arrays[fields[field]] for field in (*REQUIRED, *_MARKS) if field in fields}
    rewards = as_array(read["rewards"], f"{name}: rewards")
    environments = _environments(attributes, rewards, read)
    order = _order(attributes, fill, len(rewards), environments)
    convert = without_axis if environments else columns_of
    tree = {field: convert(value, f"{name}: {fields[field]}") for field, value in read.items()}
    return BufferContent(
        name=name,
        tree=_marks(tree, attributes),
        order=order,
        warnings=_warnings(attributes, tree, order, fill),
        has_next_observations=not arrays.keys().isdisjoint(NEXT_OBSERVATIONS),
    )


def _order(attributes: Mapping[str, Any], fill: Fill, capacity: int, environments: int) -> list[Rows]:
    """Returns the rows of each environment in the order in which they were written."""
    begun = find_number(attributes, ("env_index",)) if environments else None  # environments that are one row ahead
    has_lost_oldest = fill.is_full and _setting(attributes, "optimize_memory_usage", default=False)
    order = []
    for env in range(environments or 1):
        position = fill.head + int(begun is not None and env < begun[1])
        rows = ring_rows(capacity, position, capacity if fill.is_full else position)
        kept = rows[1:] if has_lost_oldest else rows  # the observation of the oldest row is overwritten
        order.append(kept * (environments or 1) + env)
    return order


def _arrays(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what may be columns, also under the names of flat data sets."""
    names = {str(key): value for key, value in {**attributes, **_nested(attributes)}.items() if _is_rows(value)}
    return {usual_name(key): value for key, value in names.items()} | names


def _nested(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the mapping of all arrays that some buffers have: ``tensors`` in skrl, ``dataset_dict`` in jaxrl2."""
    if has_required_fields(set(map(usual_name, attributes))):
        return {}
    for name in ("tensors", *attributes):
        value = attributes.get(name)
        if isinstance(value, Mapping) and has_required_fields({usual_name(str(key)) for key in value}):
            return value
    return {}


def _is_rows(value: Any) -> bool:
    if is_mapping(value):
        keys = tuple(value.keys())
        return bool(keys) and all(_is_rows(value[key]) for key in keys)
    return isinstance(value, (np.ndarray, list)) or hasattr(value, "detach")


def _environments(attributes: Mapping[str, Any], rewards: np.ndarray[Any, Any], read: Mapping[str, Any]) -> int:
    """Returns the size of the axis of environments; 0 if there is none."""
    shapes = [shape for field, value in read.items() for shape in _shapes(value, field)]
    if rewards.ndim < 2 or any(shape[:2] != rewards.shape[:2] for shape in shapes):
        return 0
    declared = find_number(attributes, ENVIRONMENTS)
    return rewards.shape[1] if declared is not None or rewards.shape[1] > 1 or rewards.ndim > 2 else 0


def _shapes(value: Any, name: str) -> list[tuple[int, ...]]:
    if is_mapping(value):
        return [shape for key in tuple(value.keys()) for shape in _shapes(value[key], name)]
    return [as_array(value, name).shape]


def _setting(attributes: Mapping[str, Any], name: str, *, default: bool) -> bool:
    found = find_number(attributes, (name,))
    return default if found is None else bool(found[1])


def _marks(tree: Mapping[str, Any], attributes: Mapping[str, Any]) -> Tree:
    """Drops timeouts that the buffer does not record: they are all 0, and ``dones`` include time limits."""
    records_timeouts = _setting(attributes, "handle_timeout_termination", default=True)
    return {field: item for field, item in tree.items() if field != "timeouts" or records_timeouts}


def _warnings(attributes: Mapping[str, Any], tree: Mapping[str, Any], order: list[Rows], fill: Fill) -> tuple[str, ...]:
    found = [OVERWRITTEN] if fill.is_full else []
    if fill.warning:
        found.append(fill.warning)
    if not _setting(attributes, "handle_timeout_termination", default=True):
        found.append(
            "The buffer does not record time limits (handle_timeout_termination is False): episodes that a time limit "
            "ended count as terminated."
        )
    bounds = _bounds(attributes.get("action_space"))
    actions = tree["actions"]
    if bounds is not None and "handle_timeout_termination" in attributes and isinstance(actions, ArrayColumn):
        rows = np.sort(np.concatenate(order))
        if _are_scaled(actions, rows, *bounds):
            found.append(
                f"Actions lie between -1 and 1, and the action space between {bounds[0].min():g} and "
                f"{bounds[1].max():g}: Stable-Baselines3 stores them scaled, and they are shown as stored."
            )
    return tuple(found)


def _bounds(space: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    if not isinstance(low, np.ndarray) or not isinstance(high, np.ndarray) or not low.size:
        return None
    return low, high


def _are_scaled(actions: Column, rows: Rows, low: np.ndarray[Any, Any], high: np.ndarray[Any, Any]) -> bool:
    differs = bool((low != -1).any() or (high != 1).any())
    stored = actions.read(rows[: 2**16])
    return differs and bool(len(stored)) and bool((np.abs(stored) <= 1).all())
