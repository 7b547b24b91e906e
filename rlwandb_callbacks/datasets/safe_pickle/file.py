"""Files that hold a pickle, or that torch saved: read as plain containers with arrays in them."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.safe_pickle.arrays import ArrayShell, RefusedError
from rlwandb_callbacks.datasets.safe_pickle.memo import check_memo
from rlwandb_callbacks.datasets.safe_pickle.tensors import (
    LEGACY_BEGINNING,
    ForbiddenNameError,
    array_of,
    load_legacy,
    load_zip,
)
from rlwandb_callbacks.datasets.safe_pickle.unpickler import DataUnpickler, only_our_names_in_torch
from rlwandb_callbacks.errors import DatasetError, brief

_MAX_DEPTH = 32
_FREE_BYTES = 2**24
_BYTES_PER_FILE_BYTE = 16
# Errors of reading what was cut off or tampered with; NotImplementedError, of other archives, is a RuntimeError.
ZIP_ERRORS = (EOFError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error)
_BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    SystemError,
    TypeError,
    *ZIP_ERRORS,
)


def looks_like_pickle(path: Path) -> bool:
    """Returns whether a file begins and ends as pickles do; a file of torch's old format does not end so."""
    with path.open("rb") as file:
        start = file.read(2)
        if len(start) < 2:
            return False
        if start[0] == 0x80 and 2 <= start[1] <= 5:
            return True
        file.seek(-1, 2)
        return start[:1] in b"(]})lcdI" and file.read(1) == b"."


def is_zip(path: Path) -> bool:
    """Returns whether a file is a zip archive, of one part."""
    try:
        return zipfile.is_zipfile(path)
    except ZIP_ERRORS:
        return False


def is_torch_zip(path: Path) -> bool:
    """Returns whether a file is a zip archive with torch's pickle in it; a damaged archive is not."""
    if not is_zip(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return torch_pickle(archive) is not None
    except ZIP_ERRORS:
        return False


def torch_pickle(archive: zipfile.ZipFile) -> str | None:
    """Returns the name of torch's pickle in a zip archive; None if there is none, or several."""
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    return names[0] if len(names) == 1 else None


def is_legacy(path: Path) -> bool:
    """Returns whether a file begins as torch's files did before its zip format."""
    with path.open("rb") as file:
        return file.read(len(LEGACY_BEGINNING)) == LEGACY_BEGINNING


def read_pickle(path: Path) -> Any:
    """Reads a pickle without running any code that it names.

    Returns:
        Dicts, lists, texts, numbers, and NumPy arrays, also for torch tensors. Tuples and deques become lists, and
        torch devices texts.

    Raises:
        DatasetError: If it is damaged, or holds anything but containers, numbers, texts, NumPy arrays, torch tensors
            and torch devices.
    """
    try:
        return _PlainData(_FREE_BYTES + _BYTES_PER_FILE_BYTE * path.stat().st_size).convert(_load(path))
    except ForbiddenNameError as error:
        raise DatasetError(_forbidden(path, f"asks for {brief(error.name)}")) from None
    except RefusedError as error:
        raise DatasetError(_forbidden(path, f"holds {brief(error)}")) from None
    except _BROKEN as error:
        raise DatasetError(
            f"{path} is not a complete pickle ({type(error).__name__}: {brief(error)}). Copy or create it again."
        ) from error


def _load(path: Path) -> Any:
    if is_torch_zip(path):
        _check_torch_zip(path)
        with only_our_names_in_torch():
            return load_zip(path)
    if is_legacy(path):
        with only_our_names_in_torch():
            return load_legacy(path.read_bytes())
    raw = path.read_bytes()
    check_memo(raw)
    return DataUnpickler(io.BytesIO(raw)).load()


def _check_torch_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if any(item.filename.endswith("/constants.pkl") for item in archive.infolist()):
            raise RefusedError("a TorchScript program")
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise RefusedError("compressed parts, which torch.save does not write")
        with archive.open(torch_pickle(archive) or "") as file:
            protocol = file.read(2)[1:]
    if protocol != b"\x02":
        raise RefusedError("a pickle of another protocol than 2; save it by torch.save without pickle_protocol")


def _forbidden(path: Path, problem: str) -> str:
    name, is_torch = repr(str(path)), is_torch_zip(path) or is_legacy(path)
    load = f"torch.load({name}, weights_only=False)" if is_torch else f"pickle.loads(pathlib.Path({name}).read_bytes())"
    return (
        f"{path} {problem}. Reading stopped there, and nothing in the file was run. Allowed in a pickle are numbers, "
        "texts, lists, tuples, dicts, NumPy arrays of numbers and torch tensors. If you trust its author, load it "
        f'yourself and save it as plain arrays: rlwandb_callbacks.open_dataset({load}).save("data.npz"). What was '
        "loaded may be a list of dicts, named tuples or other objects with the attributes obs, action, reward and "
        "done; a dict of arrays; a DataFrame; or a replay buffer. Of other objects, save the arrays themselves: "
        'numpy.savez("data.npz", observations=…, actions=…, rewards=…, terminals=…).'
    )


class _PlainData:
    """Converts what was unpickled to plain containers with arrays; what is in several places is converted once.

    Args:
        max_size: Limit on numbers and bytes of arrays, each counted wherever it occurs: a short file can name one list
            a billion times, or a tensor that repeats one number.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._array_bytes = 0
        self._converted: dict[int, tuple[Any, Any]] = {}
        self._sizes: dict[int, int] = {}

    def convert(self, value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, bytearray)):
            return value
        if id(value) not in self._converted:
            if depth > _MAX_DEPTH:
                raise RefusedError(f"containers nested more than {_MAX_DEPTH} deep")
            plain = self._convert(value, depth + 1)
            self._converted[id(value)] = value, plain  # the value too: its id stays taken
            self._sizes[id(value)] = self._size(value, plain)
        return self._converted[id(value)][1]

    def _size(self, value: Any, plain: Any) -> int:
        if isinstance(plain, np.ndarray):
            return self._checked(int(plain.nbytes))
        if isinstance(plain, str):
            return 1
        parts = value.values() if isinstance(value, dict) else value
        return self._checked(sum(self._sizes.get(id(part), 1) for part in parts))

    def _checked(self, size: int) -> int:
        if size > self._max_size:
            raise RefusedError("far more numbers than it has room for: some are named again and again")
        return size

    def _convert(self, value: Any, depth: int) -> Any:
        torch = sys.modules.get("torch")  # nothing of torch can be in the file before it is imported
        if isinstance(value, ArrayShell):
            return self._counted(value.array)
        if torch is not None and isinstance(value, torch.Tensor):
            return np.array(self._counted(array_of(value)))  # a copy: the view is of the file
        if torch is not None and isinstance(value, torch.device):
            return str(value)
        if isinstance(value, dict):
            return {self.convert(key, depth): self.convert(item, depth) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.convert(item, depth) for item in value]
        if isinstance(value, set):
            return value
        raise RefusedError(f"a {type(value).__name__} where data should be")

    def _counted(self, array: Any) -> Any:
        self._array_bytes = self._checked(self._array_bytes + int(array.nbytes))
        return array
