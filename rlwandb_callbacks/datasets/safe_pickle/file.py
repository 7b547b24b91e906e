"""Files that hold a pickle, or that torch saved: read as plain containers with arrays in them."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

from rlwandb_callbacks.datasets.safe_pickle.arrays import RefusedError, Shell, Storage
from rlwandb_callbacks.datasets.safe_pickle.unpickler import (
    LEGACY_MAGIC,
    DataUnpickler,
    ForbiddenNameError,
    load_legacy,
)
from rlwandb_callbacks.errors import DatasetError

_MAX_DEPTH = 32
_FREE = 2**24
_PER_BYTE = 16
# What reading a pickle that was cut off or tampered with may raise.
_BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def looks_like_pickle(path: Path) -> bool:
    """Whether a file begins and ends as pickles do; what torch saved in its old format does not end so."""
    with path.open("rb") as file:
        start = file.read(2)
        if len(start) < 2:
            return False
        if start[0] == 0x80 and 2 <= start[1] <= 5:
            return True
        file.seek(-1, 2)
        return start[:1] in b"(]})lcdI" and file.read(1) == b"."


def is_torch_zip(path: Path) -> bool:
    """Whether a file is a zip archive with torch's pickle in it."""
    return zipfile.is_zipfile(path) and _torch_root(path) is not None


def _torch_root(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    return roots[0] if len(roots) == 1 else None


def read_pickle(path: Path) -> Any:
    """Reads a pickle without running any code of its own choice.

    Returns:
        Dicts, lists, tuples, texts, numbers, and NumPy arrays, also for torch tensors.

    Raises:
        DatasetError: If it is damaged, or wants anything but containers, numbers, texts, NumPy arrays and torch
            tensors.
    """
    try:
        return _Plain(_FREE + _PER_BYTE * path.stat().st_size).of(_load(path))
    except ForbiddenNameError as error:
        raise DatasetError(_forbidden(path, f"wants {error.name}")) from None
    except RefusedError as error:
        raise DatasetError(_forbidden(path, f"holds {error}")) from None
    except _BROKEN as error:
        raise DatasetError(
            f"{path} is no whole pickle ({type(error).__name__}: {error}). Copy or make it anew."
        ) from error


def _load(path: Path) -> Any:
    if is_torch_zip(path):
        return _load_torch_zip(path)
    with path.open("rb") as file:
        legacy = pickle.dumps(LEGACY_MAGIC, protocol=2)
        beginning = file.read(len(legacy))
        file.seek(0)
        return load_legacy(file) if beginning == legacy else DataUnpickler(file).load()


def _load_torch_zip(path: Path) -> Any:
    root = _torch_root(path) or ""
    storages: dict[str, Storage] = {}
    with zipfile.ZipFile(path) as archive:
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise RefusedError("torch data in big-endian order")

        def find(dtype: str, key: str) -> Storage:
            if key not in storages:
                storages[key] = Storage(dtype, archive.read(f"{root}data/{key}"))
            return storages[key]

        with archive.open(f"{root}data.pkl") as file:
            return DataUnpickler(file, storage=find).load()


def _forbidden(path: Path, what: str) -> str:
    return (
        f"{path} {what}, which is more than data, and was not read any further: nothing in it was run. Allowed in a "
        "pickle are numbers, texts, lists, tuples, dicts, NumPy arrays of numbers and torch tensors. Where you trust "
        'its author, convert it: rows = pickle.load(open("…", "rb")), then numpy.savez("data.npz", '
        'observations=[row["obs"] for row in rows], …) with actions, rewards and terminals likewise.'
    )


class _Plain:
    """Takes arrays out of their shells; what is in several places is converted once.

    Args:
        most: Numbers and bytes of arrays that there may be, counted in each place: a short file can name one list a
            billion times, or a tensor that repeats one number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._arrays = 0
        self._done: dict[int, tuple[Any, Any]] = {}
        self._sizes: dict[int, int] = {}

    def of(self, value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, bytearray)):
            return value
        if id(value) not in self._done:
            if depth > _MAX_DEPTH:
                raise RefusedError("containers within containers without end")
            self._done[id(value)] = value, self._convert(value, depth + 1)
            self._sizes[id(value)] = self._size(value)
        return self._done[id(value)][1]

    def _size(self, value: Any) -> int:
        if isinstance(value, Shell):
            return self._checked(int(self._done[id(value)][1].nbytes))
        parts = list(value.values()) if isinstance(value, dict) else value
        return self._checked(sum(self._sizes.get(id(part), 1) for part in parts))

    def _checked(self, size: int) -> int:
        if size > self._most:
            raise RefusedError("far more numbers than it has room for: some are named again and again")
        return size

    def _convert(self, value: Any, depth: int) -> Any:
        if isinstance(value, Shell):
            array = value.array
            self._arrays = self._checked(self._arrays + array.nbytes)
            return array
        if isinstance(value, dict):
            return {self.of(key, depth): self.of(item, depth) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(item, depth) for item in value]
        if isinstance(value, set):
            return value
        raise RefusedError(f"a {type(value).__name__} where data should be")
