"""A data set's map as a table, and as a page to zoom and hover in."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.core.transitions import Transitions
from rlwandb_callbacks.core.values import Html, Table
from rlwandb_callbacks.maps.coloring import MAX_DIMENSIONS, Coloring, color_map
from rlwandb_callbacks.maps.data_map import DataMap, select_rows
from rlwandb_callbacks.maps.figures import colorings, subtitle
from rlwandb_callbacks.maps.html_template import PAGE

SHADES = 255
UNKNOWN = 255


def points_table(data_map: DataMap, *, max_rows: int) -> Table:
    """The map as rows, to color and filter in W&B.

    Args:
        data_map: The map.
        max_rows: Evenly thinned to so many.

    Returns:
        Columns ``x``, ``y``, ``x_state_action``, ``y_state_action``, ``reward``, ``return``, ``action`` (for vectors
        ``action_0`` … ``action_5``; for discrete actions ``action_name`` too), ``episode``, ``step``.
    """
    keep = thinned(len(data_map), max_rows)
    rows = select_rows(data_map.transitions, keep)
    numbers = {
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
    lists: dict[str, list[Any]] = {name: _plain(column) for name, column in numbers.items()}
    if isinstance(rows.action_spec, DiscreteActions) and "action" in lists:
        lists["action_name"] = [action_name(rows.action_spec, action) for action in lists["action"]]
    return Table(tuple(lists), list(zip(*lists.values(), strict=True)))


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """Indices of at most ``most`` of ``count`` rows, evenly spaced."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def action_columns(rows: Transitions) -> dict[str, NDArray[np.generic]]:
    """Actions by column name: ``action``, or ``action_0`` … for the first six dimensions of vectors."""
    columns = rows.actions.reshape(len(rows), -1).T
    if len(columns) == 1:
        return {"action": columns[0]}
    return {f"action_{i}": column for i, column in enumerate(columns[:MAX_DIMENSIONS])}


def action_name(spec: DiscreteActions, action: int) -> str:
    """What a discrete action is called."""
    index = action - spec.first
    return spec.names[index] if 0 <= index < len(spec.names) else str(action)


def _plain(column: NDArray[np.generic]) -> list[Any]:
    if column.dtype.kind != "f":
        return list(column.tolist())
    return [value if np.isfinite(value) else None for value in np.round(column.astype(np.float64), 6).tolist()]


def interactive_page(data_map: DataMap, *, max_rows: int) -> Html:
    """A page that needs nothing but itself: the map on a canvas, to zoom, move, hover and recolor.

    What looks wrong with the data stands at its top.

    Args:
        data_map: The map.
        max_rows: Evenly thinned to so many points.
    """
    keep = thinned(len(data_map), max_rows)
    rows = select_rows(data_map.transitions, keep)
    packed = _Packed()
    layouts = {"states": data_map.states[keep], "states with actions": data_map.state_actions[keep]}
    shown = "" if len(keep) == len(data_map) else f"{len(keep):,} points of "
    content = {
        "title": data_map.name,
        "about": shown + subtitle(data_map),
        "warnings": data_map.warnings,
        "count": len(keep),
        "layouts": [{"name": name, "at": packed.add(within_square(points))} for name, points in layouts.items()],
        "columns": [
            {"name": name, "at": packed.add(values.astype(np.float32)), "names": _names(name, rows)}
            for name, values in _hover_columns(rows).items()
        ],
        "colorings": [
            _page_coloring(coloring, keep, packed) for of_key in colorings(data_map).values() for coloring in of_key
        ],
    }
    text = json.dumps({**content, "bytes": packed.text()}, ensure_ascii=False, allow_nan=False)
    page = PAGE.replace("__TITLE__", html.escape(data_map.name))
    return Html(page.replace("__DATA__", text.replace("<", "\\u003c")))


@dataclass
class _Packed:
    """Arrays one after the other, each beginning at a multiple of four bytes."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, array: NDArray[Any]) -> int:
        """Appends an array, little-endian; gives where it begins."""
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        padded = content + bytes(-len(content) % 4)
        start, self.size = self.size, self.size + len(padded)
        self.parts.append(padded)
        return start

    def text(self) -> str:
        return base64.b64encode(b"".join(self.parts)).decode("ascii")


def within_square(points: Floats) -> NDArray[np.uint16]:
    """Points ``[K, 2]`` as whole numbers from 0 to 65,535, both axes on one scale and centered."""
    low, high = points.min(axis=0), points.max(axis=0)
    width = float((high - low).max()) or 1.0
    shares = (points - (low + high) / 2) / width + 0.5
    return np.asarray(np.round(np.clip(shares, 0, 1) * 65_535), dtype=np.uint16)


def _hover_columns(rows: Transitions) -> dict[str, NDArray[np.generic]]:
    observed = {f"observation[{i}]": column for i, column in enumerate(rows.observations.T)}
    return {
        "reward": rows.rewards,
        "episode return": rows.returns,
        **action_columns(rows),
        "episode": rows.episodes,
        "step": rows.steps,
        "episode length": rows.lengths,
        **observed,
    }


def _names(column: str, rows: Transitions) -> dict[str, str] | None:
    spec = rows.action_spec
    if column != "action" or not isinstance(spec, DiscreteActions):
        return None
    return {str(spec.first + i): name for i, name in enumerate(spec.names)}


def _page_coloring(coloring: Coloring, keep: NDArray[np.int64], packed: _Packed) -> dict[str, Any]:
    values = coloring.values[keep]
    index = np.full(len(values), UNKNOWN, dtype=np.uint8)
    known = np.isfinite(values)
    common = {"label": coloring.label, "note": coloring.note}
    if coloring.categories or not known.any():
        index[known] = values[known]
        names = [f"{category.name} ({category.count:,})" for category in coloring.categories]
        colors = [category.color for category in coloring.categories]
        return {**common, "at": packed.add(index), "categories": names, "colors": colors}
    shares = (values[known] - coloring.low) / ((coloring.high - coloring.low) or 1.0)
    index[known] = np.round(np.clip(shares, 0, 1) * (SHADES - 1))
    colors = [to_hex(color_map(coloring.color_map)(i / (SHADES - 1))) for i in range(SHADES)]
    return {**common, "at": packed.add(index), "low": coloring.low, "high": coloring.high, "colors": colors}
