"""HDF5 files: opened with errors for people, recognized by the names of what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlwandb_callbacks.datasets.columns import Column
from rlwandb_callbacks.datasets.formats.flat import ALIASES, Aliases, FlatOpened, Tree, find_roles
from rlwandb_callbacks.datasets.readers.hdf5_rows import Hdf5Column
from rlwandb_callbacks.errors import DatasetError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file carries HDF5's signature, at its beginning or behind a block of the user's."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place < size:
            file.seek(place)
            if file.read(8) == _SIGNATURE:
                return True
            place = max(512, 2 * place)
    return False


@contextmanager
def open_hdf5(path: str) -> Iterator[Any]:
    """Opens a file for reading.

    Raises:
        DatasetError: If h5py is missing, or the file is no HDF5 file or not a whole one.
    """
    try:
        import h5py
    except ImportError as error:
        raise DatasetError(
            f"{path} is an HDF5 file, which is read with h5py, and h5py is not installed: "
            'pip install "rlwandb-callbacks[offline]"'
        ) from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        why = "is cut off or damaged" if is_hdf5(Path(path)) else "is not an HDF5 file"
        raise DatasetError(f"{path} {why} ({error}). Copy or make it anew.") from error
    with file:
        yield file


def shapes_of(file: Any) -> dict[str, tuple[int, ...] | None]:
    """What is in a file or group by name: shapes of arrays, None for groups."""
    return {name: getattr(file.get(name), "shape", None) for name in file}


def tree_of(group: Any) -> Tree:
    """Columns of a group, and of the groups in it."""
    return {name: _column_or_tree(group[name]) for name in group}


def _column_or_tree(item: Any) -> Column | Tree:
    return tree_of(item) if hasattr(item, "keys") else Hdf5Column(item)


class Hdf5Flat(FlatOpened):
    """An open HDF5 file with one array per quantity; other arrays and groups, such as infos, are left alone."""

    def __init__(self, file: Any, source: str, aliases: Aliases = ALIASES) -> None:
        roles = find_roles(dict.fromkeys(file), aliases)
        wanted = {name: _column_or_tree(file[name]) for name in roles.values()}
        super().__init__(wanted, source, aliases, keys=tuple(file))
        self.warnings = tuple(costs_of(wanted))


def costs_of(tree: Mapping[str, Any]) -> Iterator[str]:
    """What reading costs, of each column where it is much."""
    for found in tree.values():
        if isinstance(found, Mapping):
            yield from costs_of(found)
        elif found.costs:
            yield found.costs


@contextmanager
def open_flat_hdf5(path: str, aliases: Aliases) -> Iterator[Hdf5Flat]:
    """Opens an HDF5 file of a flat layout whose keys are among ``aliases``."""
    with open_hdf5(path) as file:
        yield Hdf5Flat(file, path, aliases)
