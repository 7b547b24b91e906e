"""Arrays that are in memory already, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.columns import ArrayColumn, Column
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.flat import FlatOpened, Tree, find_roles
from rlwandb_callbacks.errors import DatasetError


def open_mapping(arrays: Mapping[str, Any], name: str = "arrays in memory") -> OfflineDataset:
    """Opens a mapping of arrays, tensors or lists of numbers, with nested mappings for dict observations.

    Raises:
        DatasetError: If arrays are missing, empty, of unequal length, or not of numbers.
    """
    return OfflineDataset(name=name, layout="memory", opener=partial(open_arrays, dict(arrays), name))


@contextmanager
def open_arrays(arrays: Mapping[str, Any], name: str) -> Iterator[FlatOpened]:
    """Opens arrays as a flat data set."""
    wanted = {key: arrays[key] for key in find_roles(arrays).values()}
    yield FlatOpened(columns_of(wanted, name), name, keys=tuple(str(key) for key in arrays))


def columns_of(arrays: Mapping[str, Any], source: str) -> Tree:
    """Columns of a mapping, and of the mappings in it."""
    return {str(key): _column_or_tree(str(key), value, source) for key, value in arrays.items()}


def _column_or_tree(key: str, value: Any, source: str) -> Column | Tree:
    if isinstance(value, Mapping):
        return columns_of(value, f"{source}: {key}")
    return ArrayColumn(as_array(value, f"{source}: {key}"))


def as_array(value: Any, place: str) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of what may be a tensor, an array or a list.

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
        raise DatasetError(f"{place} is no regular array ({error}); allowed are rows of equal shape.") from error
