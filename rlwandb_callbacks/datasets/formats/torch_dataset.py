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
from rlwandb_callbacks.datasets.formats.flat import FlatOpened, Tree, find_roles
from rlwandb_callbacks.datasets.formats.memory import as_array, open_mapping
from rlwandb_callbacks.datasets.formats.transition_lists import is_mapping, named
from rlwandb_callbacks.errors import DatasetError


def open_items(source: Any) -> OfflineDataset:
    """Opens a data set with a length whose items are transitions; each is asked for when it is read.

    Raises:
        DatasetError: If it has no length or no items, or they are no transitions.
    """
    name = type(source).__name__
    try:
        count = len(source)
    except (TypeError, NotImplementedError):
        raise DatasetError(
            f"{name} has no length; allowed is a torch Dataset with __len__ and __getitem__ (map style), so that rows "
            "can be sampled. Write the transitions of an iterable one to a file first."
        ) from None
    if not count:
        raise DatasetError(f"{name} has zero transitions.")
    tensors = getattr(source, "tensors", None)
    if isinstance(tensors, tuple):
        by_name = named(tensors, name)
        found = open_mapping(by_name, name)
        found.layout = "torch"
        return found
    return OfflineDataset(name=name, layout="torch", opener=partial(_open, source, name))


@contextmanager
def _open(source: Any, name: str) -> Iterator[FlatOpened]:
    items = _Items(source, name)
    first = items.item(0)
    wanted = {
        key: _column_or_tree(items, (key,), first[key]) for key in find_roles(dict.fromkeys(first.keys())).values()
    }
    yield FlatOpened(wanted, name)


def _column_or_tree(items: _Items, path: tuple[str, ...], value: Any) -> Column | Tree:
    if is_mapping(value):
        return {str(key): _column_or_tree(items, (*path, key), value[key]) for key in list(value.keys())}
    return _ItemColumn(items, path, as_array(value, "/".join(path)))


class _Items:
    """The transitions by name; numbers of the last stretch that was read are kept, as they are asked for together."""

    def __init__(self, source: Any, name: str) -> None:
        self._source, self._name = source, name
        self.count = len(source)
        self.numbers: list[tuple[str, ...]] = []
        self._kept: tuple[tuple[int, int], dict[tuple[str, ...], NDArray[np.generic]]] | None = None

    def item(self, row: int) -> Mapping[str, Any]:
        return named(self._source[row], f"{self._name}: item {row}")

    def value(self, item: Mapping[str, Any], path: tuple[str, ...]) -> Any:
        found: Any = item
        for key in path:
            found = found[key]
        return as_array(found, "/".join(path))

    def stretch(self, low: int, high: int) -> dict[tuple[str, ...], NDArray[np.generic]]:
        if self._kept is None or self._kept[0] != (low, high):
            rows = ([self.value(item, path) for path in self.numbers] for item in map(self.item, range(low, high)))
            columns = [np.stack(values) for values in zip(*rows, strict=True)]
            self._kept = (low, high), dict(zip(self.numbers, columns, strict=True))
        return self._kept[1]


class _ItemColumn:
    """One quantity of the items.

    Args:
        items: The transitions.
        path: Where the quantity is in each.
        first: That of the first.
    """

    def __init__(self, items: _Items, path: tuple[str, ...], first: NDArray[np.generic]) -> None:
        self._items, self._path = items, path
        self.shape = (items.count, *first.shape)
        self.dtype = first.dtype
        self._is_number = first.size == 1
        if self._is_number:
            items.numbers.append(path)

    def read(self, rows: Rows) -> NDArray[np.generic]:
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for place, row in enumerate(rows.tolist()):
            value = self._items.value(self._items.item(row), self._path)
            if value.shape != self.shape[1:]:
                raise DatasetError(
                    f"{'/'.join(self._path)} has shape {value.shape} in item {row} and {self.shape[1:]} in item 0; "
                    "allowed is one shape for all."
                )
            out[place] = value
        return out

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        if self._is_number:
            return self._items.stretch(low, high)[self._path]
        return self.read(np.arange(low, high, dtype=np.int64))
