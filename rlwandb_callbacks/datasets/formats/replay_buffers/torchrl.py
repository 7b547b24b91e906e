"""Replay buffers and batches of TorchRL, whose rewards and marks stand below ``next``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.columns import ArrayColumn, Column, Rows
from rlwandb_callbacks.datasets.formats.field_names import ALIASES, find_fields
from rlwandb_callbacks.datasets.formats.flat import Tree
from rlwandb_callbacks.datasets.formats.memory import as_array
from rlwandb_callbacks.datasets.formats.records import is_mapping
from rlwandb_callbacks.datasets.formats.replay_buffers.ring import OVERWRITTEN, BufferContent
from rlwandb_callbacks.errors import DatasetError

_MARKS = ("terminals", "timeouts", "dones")
_SLICES = (
    "The rows are a batch that was sampled from a buffer, as their key 'index' shows: it is cut where the index does "
    "not go on by 1, and ends by time limits are not read, because SliceSampler also marks the end of each slice so. "
    "Its pieces are no whole episodes: give the buffer itself."
)


def has_next(source: Any) -> bool:
    """Returns whether a mapping has the reward of each step below ``next``, as TorchRL's have."""
    if not is_mapping(source):
        return False
    keys = tuple(source.keys())
    return "next" in keys and not find_fields(keys).keys() & {"rewards"} and is_mapping(source["next"])


def find_torchrl(attributes: Mapping[str, Any], name: str) -> BufferContent | None:
    """Returns the content of a replay buffer of TorchRL; None of anything else.

    Raises:
        DatasetError: If its rows are not in the order of time, or hold no transitions.
    """
    storage: Any = attributes.get("_storage")
    writer: Any = attributes.get("_writer")
    if not hasattr(storage, "max_size") or writer is None:
        return None
    if not len(storage):
        raise DatasetError(f"{name} has zero transitions: nothing was written to the buffer.")
    if hasattr(writer, "_current_top_values"):
        raise DatasetError(
            f"{name} has a {type(writer).__name__}, which puts each row at the place of a lesser one: the order of its "
            "rows in time is not stored. Give a buffer with a round-robin writer, TorchRL's default."
        )
    data = storage[:]
    data = _stacked(data) if isinstance(data, list) else data
    if not is_mapping(data):
        raise DatasetError(
            f"{name} stores items of type {type(data).__name__}; allowed are TensorDicts with observation, action and "
            "next."
        )
    is_full = len(storage) >= storage.max_size
    head = int(getattr(writer, "_cursor", 0)) if is_full else 0
    return ring_content(name, data, head=head, ring_axes=int(getattr(storage, "ndim", 1)), is_full=is_full)


def batch_content(data: Any, name: str) -> BufferContent:
    """Returns the content of a TensorDict, or a mapping like one, whose first axes are (time) or (environment, time).

    Raises:
        DatasetError: If it has no observation, action and reward.
    """
    rows = _Rows.of(name, data)
    if "index" in tuple(data.keys()):
        return _sampled(rows, as_array(data["index"], f"{name}: index"))
    return rows.content(list(np.arange(rows.count, dtype=np.int64).reshape(-1, rows.shape[-1])))


def ring_content(name: str, data: Any, *, head: int, ring_axes: int, is_full: bool) -> BufferContent:
    """Returns the content of a storage that is written as a ring along its first axis.

    Args:
        name: Name of the buffer in messages.
        data: The rows that were written: a TensorDict, or a mapping like one.
        head: The index along the first axis that is written next if the buffer is full; else 0.
        ring_axes: Number of axes of the storage. The first is that of time, the others are environments. Items of a
            storage of one axis may hold consecutive steps, along their last axis of rows.
        is_full: Whether older rows may have been overwritten.

    Raises:
        DatasetError: If it has no observation, action and reward.
    """
    rows = _Rows.of(name, data)
    grid = np.roll(np.arange(rows.count, dtype=np.int64).reshape(rows.shape), -head, axis=0)
    warnings = (OVERWRITTEN,) * is_full
    if ring_axes > 1:
        return rows.content(list(grid.reshape(len(grid), -1).T), warnings)
    if len(rows.shape) == 1:
        return rows.content([grid], warnings)
    cut = f"Each stored item holds {rows.shape[-1]:,} steps, and episodes are cut after it unless it has ids."
    return rows.content(list(grid.reshape(-1, rows.shape[-1])), (*warnings, cut))


def _stacked(items: list[Any]) -> Any:
    if not all(map(is_mapping, items)):
        return items[0]
    import torch

    return torch.stack(items)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Data of TorchRL as columns of rows.

    Args:
        name: Name of the data in messages.
        data: The data.
        tree: Columns by field.
        shape: Sizes of the axes of rows.
        ids: Number of the episode of each row, if there is one.
    """

    name: str
    data: Any
    tree: Tree
    shape: tuple[int, ...]
    ids: Rows | None

    @classmethod
    def of(cls, name: str, data: Any) -> _Rows:
        found = _named(data, name)
        rewards = as_array(found["rewards"], f"{name}: next/reward")
        axes = _row_axes(data, rewards)
        tree = {field: _flat(value, axes, f"{name}: {field}") for field, value in found.items()}
        return cls(name=name, data=data, tree=tree, shape=rewards.shape[:axes], ids=_episode_ids(data, axes, name))

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def content(self, order: list[Rows], warnings: tuple[str, ...] = ()) -> BufferContent:
        """Returns the rows in an order, split by ids of episodes, or where an observation does not follow."""
        if self.ids is not None:
            order = _by_id(order, self.ids)
        elif len(order) == 1:
            order, cuts = _cut(order[0], self.data, self.tree, self.name)
            warnings = (*warnings, *cuts)
        return BufferContent(name=self.name, tree=self.tree, order=order, warnings=warnings)


def _named(data: Any, name: str) -> dict[str, Any]:
    """Returns the values of the fields: rewards and marks from below ``next``, the others from the root."""
    keys = tuple(data.keys())
    own = {**find_fields(keys)}
    if "observations" not in own and "pixels" in keys:
        own["observations"] = "pixels"
    after = data["next"] if "next" in keys and is_mapping(data["next"]) else data
    later = find_fields(tuple(after.keys()))
    missing = [field for field in ("observations", "actions") if field not in own]
    missing += [] if "rewards" in later else ["rewards"]
    if missing:
        allowed = "; ".join(f"for {field}: {', '.join(ALIASES[field])}" for field in missing)
        raise DatasetError(
            f"{name} has no {' and no '.join(missing)}. Keys found: {', '.join(map(str, keys))}. Allowed are {allowed} "
            "(the reward below next)."
        )
    found = {field: data[own[field]] for field in ("observations", "actions")}
    marks = [field for field in _MARKS if field in later]
    if "terminals" in marks and "timeouts" in marks:
        marks.remove("dones")
    return found | {field: after[later[field]] for field in ("rewards", *marks)}


def _row_axes(data: Any, rewards: np.ndarray[Any, Any]) -> int:
    """Returns the number of axes of rows: TorchRL's rewards have a last axis of size 1."""
    axes = len(getattr(data, "batch_size", ())) or max(1, rewards.ndim - 1)
    if axes < rewards.ndim - 1 and rewards.shape[-1:] == (1,):  # items of one axis that hold steps
        return rewards.ndim - 1
    return min(axes, rewards.ndim)


def _flat(value: Any, axes: int, name: str) -> Column | Tree:
    if is_mapping(value):
        return {str(key): _flat(value[key], axes, f"{name}/{key}") for key in tuple(value.keys())}
    array = as_array(value, name)
    return ArrayColumn(array.reshape(-1, *array.shape[axes:]))


def _episode_ids(data: Any, axes: int, name: str) -> Rows | None:
    """Returns the number of each row's episode, which TorchRL's collectors store; None if there is none."""
    keys = tuple(data.keys())
    for source in (data["collector"] if "collector" in keys and is_mapping(data["collector"]) else {}, data):
        key = find_fields(tuple(source.keys())).get("ids")
        ids = as_array(source[key], f"{name}: {key}") if key is not None else np.zeros(0)
        if ids.dtype.kind in "iu" and ids.ndim in (axes, axes + 1):
            return ids.reshape(-1).astype(np.int64)
    return None


def _by_id(order: list[Rows], ids: Rows) -> list[Rows]:
    """Returns the rows of each episode, in the order of their first rows."""
    rows = np.concatenate(order)
    if len(ids) <= int(rows.max()):
        return order
    _, first, group = np.unique(ids[rows], return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[group.reshape(-1)]
    ascending = np.argsort(place, kind="stable")
    return np.split(rows[ascending], np.cumsum(np.bincount(place))[:-1])


def _cut(rows: Rows, data: Any, tree: Tree, name: str) -> tuple[list[Rows], tuple[str, ...]]:
    """Cuts rows where the next observation of a step is not the observation of the row after it.

    Steps of several environments lie in one axis of rows if a collector's batch was flattened before it was stored.
    """
    before, after = tree["observations"], _next_observations(data, name)
    if after is None or isinstance(before, Mapping) or before.shape != after.shape or len(rows) < 2:
        return [rows], ()
    ended = _ended(tree, len(rows))
    differs = np.zeros(len(rows) - 1, dtype=bool)
    step = max(1, 2**24 // max(1, math.prod(before.shape[1:])))
    for low in range(0, len(rows) - 1, step):
        high = min(low + step, len(rows) - 1)
        first, second = after[rows[low:high]], before.read(rows[low + 1 : high + 1])
        differs[low:high] = (first != second).reshape(high - low, -1).any(axis=1)
    cuts = np.flatnonzero(differs & ~ended[rows[:-1]]) + 1
    if not len(cuts):
        return [rows], ()
    steps = f"{len(cuts):,} steps are" if len(cuts) > 1 else "1 step is"
    warning = (
        f"{steps} followed by another observation than the next one of the step, although no end is marked there: rows "
        "of several environments lie one behind the other, or rows are missing. Episodes are cut there."
    )
    return np.split(rows, cuts), (warning,)


def _next_observations(data: Any, name: str) -> np.ndarray[Any, Any] | None:
    keys = tuple(data.keys())
    after = data["next"] if "next" in keys and is_mapping(data["next"]) else {}
    key = find_fields(tuple(after.keys())).get("observations") or ("pixels" if "pixels" in tuple(after.keys()) else "")
    if not key or is_mapping(after[key]):
        return None
    return as_array(after[key], f"{name}: next/{key}")


def _ended(tree: Tree, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    ended = np.zeros(count, dtype=bool)
    for field in _MARKS:
        column = tree.get(field)
        if column is not None and not isinstance(column, Mapping) and column.shape[0] == count:
            ended |= np.asarray(column.span(0, count)).reshape(count, -1).any(axis=1)
    return ended


def _sampled(rows: _Rows, index: np.ndarray[Any, Any]) -> BufferContent:
    """Returns a batch that was sampled: its marks of time limits and of done are also those of ends of slices."""
    flat = index.reshape(rows.count, -1).astype(np.int64)
    steps = np.diff(flat, axis=0)
    goes_on = (steps[:, 0] == 1) & (steps[:, 1:] == 0).all(axis=1)
    tree = {field: item for field, item in rows.tree.items() if field not in ("timeouts", "dones")}
    order = np.split(np.arange(rows.count, dtype=np.int64), np.flatnonzero(~goes_on) + 1)
    return BufferContent(name=rows.name, tree=tree, order=order, warnings=(_SLICES,))
