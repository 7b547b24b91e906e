"""Groups of an HDF5 file whose arrays lie in that file alone.

HDF5 itself follows links to other files, reads external storage and joins virtual data sets without a word: an array
called observations may hold the bytes of any file of this machine. Links are resolved here, one name at a time, and
each array is checked before anything of it is read.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias, Union

from rlwandb_callbacks.datasets.formats.hdf5_chunks import ChunkCheck, Storage
from rlwandb_callbacks.datasets.formats.hdf5_virtual import (
    ONE_FILE,
    RefusedItemError,
    require_one_file,
    require_whole,
)
from rlwandb_callbacks.datasets.limits import FileLimits
from rlwandb_callbacks.errors import DatasetError, brief, sentence

# Of damaged files h5py raises errors of many types.
DAMAGE_ERRORS = (OSError, KeyError, LookupError, RuntimeError, TypeError, ValueError, ArithmeticError)
_MAX_HOPS = 16
_MAX_DEPTH = 16
_MAX_ITEMS = 5_000
_SMALLER_CHUNKS = "Save it in smaller chunks, such as those of chunks=True in h5py."

Item: TypeAlias = Union["Hdf5Group", Any]
"""A group, or an ``h5py.Dataset`` that was checked."""


class Hdf5Group:
    """A group of an HDF5 file; what it returns lies in that file.

    Args:
        group: An open ``h5py.Group``.
        limits: Limits of the file.
        is_unclosed: Whether the file was not closed by its writer, so that its arrays may differ by some rows.

    Attributes:
        limits: Limits of the file.
        is_unclosed: As above.
    """

    def __init__(self, group: Any, limits: FileLimits, *, is_unclosed: bool = False) -> None:
        self._group, self.limits, self.is_unclosed = group, limits, is_unclosed
        # Links can make a group a part of itself: depth and number of the items below one of the root are limited.
        self._depth = 0
        self._opened: Iterator[int] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        """Returns the names of all items, without those that are no text."""
        with self._reading("its keys"):
            return [name for name in self._group if isinstance(name, str)]

    def __contains__(self, name: str) -> bool:
        with self._reading(name):
            return bool(self._group.id.links.exists(name.encode("utf-8", "surrogateescape")))

    def __getitem__(self, path: str) -> Item:
        """Returns an item that lies in this file.

        Raises:
            DatasetError: If it or a part of its path is a link to another file, leads nowhere, is damaged, takes values
                from another file, or is larger than the file has room for.
        """
        opened = self._opened or itertools.count(1)
        if self._depth > _MAX_DEPTH or next(opened) > _MAX_ITEMS:
            raise self._error(
                path,
                f"lies over {_MAX_DEPTH} groups deep, or beside {_MAX_ITEMS:,} arrays. Is a group linked to itself?",
            )
        with self._reading(path):
            found = _resolve(self._group, path)
            return self._child(found, opened) if hasattr(found, "keys") else self._checked(found)

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        """Turns errors of h5py into one that names the item."""
        try:
            yield
        except RefusedItemError as error:
            raise self._error(path, str(error)) from None
        except DatasetError:
            raise
        except DAMAGE_ERRORS as error:
            problem = f"cannot be read ({type(error).__name__}: {brief(error)}). Is the file damaged?"
            raise self._error(path, problem) from None

    def _child(self, group: Any, opened: Iterator[int]) -> Hdf5Group:
        child = Hdf5Group(group, self.limits)
        child._depth, child._opened = self._depth + 1, opened
        return child

    def whole_number(self, name: str) -> int | None:
        """Returns an attribute of the group that is one whole number; None if it is not, or there is none."""
        with contextlib.suppress(*DAMAGE_ERRORS):
            return int(self._group.attrs[name])
        return None

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Returns the shape of an array; None of groups, of arrays without a shape, and of what is refused."""
        with contextlib.suppress(RefusedItemError, *DAMAGE_ERRORS):
            shape = getattr(_resolve(self._group, name), "shape", None)
            return None if shape is None else tuple(shape)
        return None

    def _error(self, path: str, problem: str) -> DatasetError:
        name = f"{self._group.name.rstrip('/')}/{path}" if self._group.name else path
        return DatasetError(sentence(f"{self.limits.path}: {name} {problem}"))

    def _checked(self, dataset: Any) -> Any:
        """Checks an array and the arrays that a virtual one is made of."""
        if self._check(dataset).is_virtual:
            parts = dataset.virtual_sources()
            sources = {name: self._checked_source(dataset, name) for name in {part.dset_name for part in parts}}
            require_whole(dataset, parts, sources)
        return dataset

    def _checked_source(self, dataset: Any, name: str) -> Any:
        source = _resolve(dataset.file["/"], name)
        if hasattr(source, "keys"):
            raise RefusedItemError("is a virtual data set made of a group, where an array is needed")
        storage = self._check(source)
        if storage.is_virtual:
            raise RefusedItemError("is a virtual data set made of virtual data sets, which are not read")
        ChunkCheck(storage, self.limits).check_all(source)
        return source

    def _check(self, dataset: Any) -> Storage:
        storage = Storage.of(dataset)
        _require_own_values(dataset, storage)
        if storage.filters:
            _require_filters(storage)
        if storage.shape:
            self.limits.check_array(dataset.name, storage.shape, storage.dtype.itemsize)
            self.limits.check_memory(dataset.name, storage.cache_bytes, _SMALLER_CHUNKS)
        return storage


def _resolve(group: Any, path: str) -> Any:
    """Returns the ``h5py.Group`` or ``h5py.Dataset`` that a path within the file leads to."""
    import h5py

    found = _follow(group.id, path, itertools.count(1))
    kind = h5py.h5i.get_type(found)
    if kind == h5py.h5i.GROUP:
        return h5py.Group(found)
    if kind == h5py.h5i.DATASET:
        return h5py.Dataset(found, readonly=True)
    raise RefusedItemError("is neither an array nor a group")


def _follow(start: Any, path: str, hops: Iterator[int]) -> Any:
    """Follows links within the file, one name at a time; takes and returns identifiers of HDF5, which are quick."""
    import h5py

    item = h5py.h5o.open(start, b"/") if path.startswith("/") else start
    for name in filter(None, path.split("/")):
        if not isinstance(item, h5py.h5g.GroupID):
            raise RefusedItemError("leads through an array, where a group is needed")
        links, key = item.links, name.encode("utf-8", "surrogateescape")
        kind = links.get_info(key).type  # does not follow the link
        if kind == h5py.h5l.TYPE_HARD:
            item = h5py.h5o.open(item, key)
        elif kind == h5py.h5l.TYPE_SOFT:
            if next(hops) > _MAX_HOPS:
                raise RefusedItemError(f"is a chain of more than {_MAX_HOPS} links, as links to themselves are")
            item = _follow(item, links.get_val(key).decode("utf-8", "surrogateescape"), hops)
        else:
            other = links.get_val(key)[0] if kind == h5py.h5l.TYPE_EXTERNAL else b"of an unknown kind"
            file_name = other.decode("utf-8", "replace")
            raise RefusedItemError(f"is a link to another file, {file_name}, which is not read. {ONE_FILE}")
    return item


def _require_own_values(dataset: Any, storage: Storage) -> None:
    """Refuses arrays whose values come from other files."""
    if storage.is_external:
        names = ", ".join(sorted({str(part[0]) for part in dataset.external}))
        raise RefusedItemError(f"takes its values from another file, {names}, which is not read. {ONE_FILE}")
    if storage.is_virtual:
        require_one_file(dataset)


def _require_filters(storage: Storage) -> None:
    """Refuses arrays that are compressed by a filter that is not installed; hdf5plugin is used if it is."""
    import h5py

    codes = storage.filters
    if storage.is_compressed_twice:
        raise RefusedItemError("is compressed twice, which cannot be read in bounded memory. Save it with one filter")
    if not all(map(h5py.h5z.filter_avail, codes)):
        with contextlib.suppress(ImportError):
            import hdf5plugin  # noqa: F401  # registers its filters with HDF5
    if missing := [str(code) for code in codes if not h5py.h5z.filter_avail(code)]:
        raise RefusedItemError(
            f"is compressed by HDF5 filter {', '.join(missing)}, which is not installed: pip install hdf5plugin, or "
            "save it with compression='gzip'"
        )
