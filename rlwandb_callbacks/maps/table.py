"""A data set's map as a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.transitions import Transitions
from rlwandb_callbacks.core.values import Table
from rlwandb_callbacks.maps.coloring import MAX_DIMENSIONS, action_name
from rlwandb_callbacks.maps.data_map import DataMap, select_rows
from rlwandb_callbacks.maps.features import evenly_spaced


def points_table(data_map: DataMap, *, max_rows: int) -> Table:
    """Returns the points of a map as rows, to color and filter in W&B; more than ``max_rows`` are thinned evenly.

    Columns are ``x``, ``y``, ``x_state_action``, ``y_state_action``, ``reward``, ``return``, ``action`` (for vectors
    ``action_0`` … ``action_5``), ``episode``, ``step``; for discrete actions also ``action_name``.
    """
    keep = evenly_spaced(len(data_map), max_rows)
    rows = select_rows(data_map.transitions, keep)
    columns = {
        "x": data_map.states[keep, 0],
        "y": data_map.states[keep, 1],
        "x_state_action": data_map.state_actions[keep, 0],
        "y_state_action": data_map.state_actions[keep, 1],
        "reward": rows.rewards,
        "return": rows.returns,
        **action_columns(rows),
        "episode": rows.episodes,
        "step": rows.steps,
    }
    lists: dict[str, list[Any]] = {name: _plain(column) for name, column in columns.items()}
    if isinstance(rows.action_spec, DiscreteActions) and "action" in lists:
        lists["action_name"] = [action_name(rows.action_spec, action) for action in lists["action"]]
    return Table(tuple(lists), list(zip(*lists.values(), strict=True)))


def action_columns(rows: Transitions) -> dict[str, NDArray[np.generic]]:
    """Returns actions by column name: ``action``, or ``action_0`` … for the first six dimensions of vectors."""
    columns = rows.actions.reshape(len(rows), -1).T
    if len(columns) == 1:
        return {"action": columns[0]}
    return {f"action_{i}": column for i, column in enumerate(columns[:MAX_DIMENSIONS])}


def _plain(column: NDArray[np.generic]) -> list[Any]:
    if column.dtype.kind != "f":
        return list(column.tolist())
    return [value if np.isfinite(value) else None for value in np.round(column.astype(np.float64), 6).tolist()]
