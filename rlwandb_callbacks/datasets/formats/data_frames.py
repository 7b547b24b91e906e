"""Data frames of pandas and polars: one row per transition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.formats.field_names import ALIASES, REQUIRED, find_fields
from rlwandb_callbacks.datasets.formats.flat import natural_order
from rlwandb_callbacks.datasets.formats.memory import as_array


def is_data_frame(value: Any) -> bool:
    """Returns whether a value is a table with named columns."""
    return all(hasattr(value, name) for name in ("columns", "to_numpy", "__getitem__"))


def columns_of(frame: Any) -> Mapping[str, Any]:
    """Returns the columns as arrays; cells may hold arrays, and a vector may have one column for each of its numbers.

    ``obs_0``, ``obs_1``, … are the vector ``obs`` if there is no column for observations.
    """
    columns = {str(name): _array(frame[name].to_numpy(), str(name)) for name in frame.columns}
    for field in REQUIRED[:2]:
        if field not in find_fields(columns):
            columns |= _numbered(columns, ALIASES[field])
    return columns


def _array(cells: Any, name: str) -> Any:
    if np.asarray(cells).dtype.kind != "O":
        return cells
    if len(cells) and all(isinstance(cell, Mapping) and cell.keys() == cells[0].keys() for cell in cells):  # structs
        return {key: _array(_cells([cell[key] for cell in cells]), f"{name}/{key}") for key in cells[0]}
    if all(isinstance(cell, str) for cell in cells):
        return cells.astype(str)
    if all(isinstance(cell, int | float | bool | np.generic) for cell in cells):
        return as_array(cells.tolist(), name)
    shapes = {np.shape(cell) for cell in cells}
    return np.stack([as_array(cell, name) for cell in cells]) if len(shapes) == 1 and shapes != {()} else cells


def _cells(values: list[Any]) -> Any:
    cells = np.empty(len(values), dtype=object)
    cells[:] = values
    return cells


def _numbered(columns: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the vector of the first name that numbered columns have; nothing if there are none."""
    for name in names:
        parts = [key for key in columns if re.fullmatch(rf"{re.escape(name)}[_.\[]?\d+\]?", key)]
        if parts:
            parts.sort(key=lambda key: natural_order(key.rstrip("]")))
            return {name: np.stack([columns[key] for key in parts], axis=1)}
    return {}
