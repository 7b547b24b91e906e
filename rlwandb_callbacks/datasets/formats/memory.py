"""Arrays that are in memory, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.columns import ArrayColumn, Column
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.field_names import find_fields
from rlwandb_callbacks.datasets.formats.flat import FlatReader, Tree
from rlwandb_callbacks.errors import DatasetError


def open_mapping(
    arrays: Mapping[str, Any],
    name: str = "arrays in memory",
    layout: str = "memory",
    warnings: tuple[str, ...] = (),
) -> OfflineDataset:
    """Opens a mapping of arrays, tensors or lists of numbers, with nested mappings for dict observations.

    Args:
        arrays: Columns by name.
        name: Name of the data set in messages.
        layout: Name of its format.
        warnings: Problems of the data that were found before.

    Raises:
        DatasetError: If arrays are missing, empty, of unequal length, or not numeric.
    """
    return OfflineDataset(name=name, layout=layout, opener=partial(open_arrays, dict(arrays), name, warnings))


@contextmanager
def open_arrays(arrays: Mapping[str, Any], name: str, warnings: tuple[str, ...] = ()) -> Iterator[FlatReader]:
    """Opens arrays as a flat data set."""
    tree = {key: _column_or_tree(arrays[key], f"{name}: {key}") for key in find_fields(arrays).values()}
    yield FlatReader(tree, name, keys=arrays, warnings=warnings)


def _column_or_tree(value: Any, name: str) -> Column | Tree:
    if isinstance(value, Mapping):
        return {str(key): _column_or_tree(inner, f"{name}: {key}") for key, inner in value.items()}
    return ArrayColumn(as_array(value, name))


def as_array(value: Any, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Converts a tensor, an array or a list to an array.

    Raises:
        DatasetError: If rows have different shapes.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return np.asarray(value.numpy())
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DatasetError(f"{name} is not a regular array ({error}); allowed are rows of equal shape.") from error
