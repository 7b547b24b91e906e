"""A ``torch.utils.data.Dataset`` whose items are transitions: dicts, or tuples (s, a, r, s', done)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Column, Rows
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.field_names import find_fields
from rlwandb_callbacks.datasets.formats.flat import FlatReader, Tree
from rlwandb_callbacks.datasets.formats.memory import as_array, open_mapping
from rlwandb_callbacks.datasets.formats.recorded_steps import open_recording, recorded_columns
from rlwandb_callbacks.datasets.formats.records import is_mapping
from rlwandb_callbacks.datasets.formats.transition_lists import as_mapping
from rlwandb_callbacks.errors import DatasetError


def open_torch_dataset(source: Any) -> OfflineDataset:
    """Opens a map-style data set whose items are transitions; an item is loaded when it is read.

    Raises:
        DatasetError: If it has no length or no items, or they are not transitions.
    """
    name = type(source).__name__
    try:
        count = len(source)
    except (TypeError, NotImplementedError):
        raise DatasetError(
            f"{name} has no length; allowed is a torch Dataset with __len__ and __getitem__ (map style), so that rows "
            "can be sampled. Of an iterable one, give the list of its transitions, list(dataset)."
        ) from None
    if not count:
        raise DatasetError(f"{name} has zero transitions.")
    tensors = getattr(source, "tensors", None)
    if isinstance(tensors, tuple):
        return open_mapping(as_mapping(tensors, name), name, layout="torch")
    if (columns := recorded_columns(source)) is not None:
        return open_recording(columns, name)
    return OfflineDataset(name=name, layout="torch", opener=partial(_open, source, name))


@contextmanager
def _open(source: Any, name: str) -> Iterator[FlatReader]:
    items = _Items(source, name)
    first = items.load(0)
    keys = tuple(first.keys())
    tree = {key: _column_or_tree(items, (key,), first[key]) for key in find_fields(keys).values()}
    yield FlatReader(tree, name, keys=keys, may_be_unwritten=False)  # items are loaded one by one


def _column_or_tree(items: _Items, path: tuple[str, ...], value: Any) -> Column | Tree:
    if is_mapping(value):
        return {str(key): _column_or_tree(items, (*path, key), value[key]) for key in list(value.keys())}
    return _ItemColumn(items, path, as_array(value, "/".join(path)))


class _Items:
    """The transitions; the scalars of the last block are cached, because their columns are read one after the other."""

    def __init__(self, source: Any, name: str) -> None:
        self._source, self._name = source, name
        self.count = len(source)
        self.scalars: list[tuple[str, ...]] = []
        self._cached: tuple[tuple[int, int], dict[tuple[str, ...], NDArray[np.generic]]] | None = None

    def load(self, row: int) -> Mapping[str, Any]:
        return as_mapping(self._source[row], f"{self._name}: item {row}")

    def value(self, item: Mapping[str, Any], path: tuple[str, ...]) -> Any:
        found: Any = item
        for key in path:
            found = found[key]
        return as_array(found, "/".join(path))

    def scalar_block(self, low: int, high: int) -> dict[tuple[str, ...], NDArray[np.generic]]:
        if self._cached is None or self._cached[0] != (low, high):
            rows = ([self.value(item, path) for path in self.scalars] for item in map(self.load, range(low, high)))
            columns = [np.stack(values) for values in zip(*rows, strict=True)]
            self._cached = (low, high), dict(zip(self.scalars, columns, strict=True))
        return self._cached[1]


class _ItemColumn:
    """One field of the items.

    Args:
        items: The transitions.
        path: Keys that lead to the field in each item.
        first: Value of the field in the first item.
    """

    def __init__(self, items: _Items, path: tuple[str, ...], first: NDArray[np.generic]) -> None:
        self._items, self._path = items, path
        self.shape = (items.count, *first.shape)
        self.dtype = first.dtype
        self._is_scalar = first.size == 1
        if self._is_scalar:
            items.scalars.append(path)

    def read(self, rows: Rows) -> NDArray[np.generic]:
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for index, row in enumerate(rows.tolist()):
            value = self._items.value(self._items.load(row), self._path)
            if value.shape != self.shape[1:]:
                raise DatasetError(
                    f"{'/'.join(self._path)} has shape {value.shape} in item {row} and {self.shape[1:]} in item 0; "
                    "allowed is one shape for all items."
                )
            out[index] = value
        return out

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        if self._is_scalar:
            return self._items.scalar_block(low, high)[self._path]
        return self.read(np.arange(low, high, dtype=np.int64))
