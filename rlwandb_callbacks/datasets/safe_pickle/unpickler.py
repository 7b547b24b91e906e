"""Reads pickles that hold data, and refuses those that want anything else.

Unpickling calls whatever the file names. Here every name that a file may use stands for code of this package, which
builds plain containers and arrays and nothing else; neither NumPy's nor torch's own unpickling is called, torch is not
imported, and a name that is not on the list ends the reading before anything is called.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import IO, Any

from rlwandb_callbacks.datasets.safe_pickle.arrays import (
    Inert,
    RefusedError,
    Storage,
    array_from_buffer,
    dtype_named,
    empty_shell,
    encode,
    rebuild_parameter,
    rebuild_tensor,
    rebuild_tensor_of_dtype,
    scalar,
    torch_names,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first thing in what torch saved before its zip format
_LEGACY_PROTOCOL = 1001


class ForbiddenNameError(pickle.UnpicklingError):
    """The pickle wants something by a name that is not on the list.

    Args:
        name: In full, such as ``posix.system``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"wants {name}")
        self.name = name


class _Call:
    """A function of ours under a foreign name; nothing can be stored in it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: object) -> Any:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise RefusedError("a state for a function")


def _bytes(*args: object) -> bytes:
    if not all(isinstance(arg, (bytes, bytearray)) for arg in args) or len(args) > 1:
        raise RefusedError("bytes made of something else")
    return bytes(args[0]) if args and isinstance(args[0], (bytes, bytearray)) else b""


def _items(*args: object) -> list[Any]:
    if not all(isinstance(arg, (list, tuple, set)) for arg in args) or len(args) > 1:
        raise RefusedError("a container made of something else")
    return list(args[0]) if args and isinstance(args[0], (list, tuple, set)) else []


def _storage_from_bytes(raw: object) -> Storage:
    """Stands for torch's ``_load_from_bytes``, which would unpickle once more."""
    found = load_legacy(io.BytesIO(raw), nested=True) if isinstance(raw, bytes) else None
    if not isinstance(found, Storage):
        raise RefusedError("a torch storage that is none")
    return found


def _names() -> dict[tuple[str, str], object]:
    calls: dict[tuple[str, str], Callable[..., Any]] = {
        ("_codecs", "encode"): encode,
        ("collections", "OrderedDict"): lambda *args: dict(_items(*args)),
        ("numpy", "dtype"): dtype_named,
        ("torch", "Size"): lambda *args: tuple(_items(*args)),
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_of_dtype,
        ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray", "_reconstruct"] = empty_shell
        calls[f"{core}.multiarray", "scalar"] = scalar
        calls[f"{core}.numeric", "_frombuffer"] = array_from_buffer
    for builtins in ("builtins", "__builtin__"):  # the latter in protocols that Python 2 can read
        calls |= {(builtins, name): _bytes for name in ("bytes", "bytearray")}
        calls |= {(builtins, name): lambda *args: set(_items(*args)) for name in ("set", "frozenset")}
    named: dict[tuple[str, str], object] = {name: _Call(function) for name, function in calls.items()}
    return named | torch_names() | {("numpy", "ndarray"): Inert("array")}


_NAMES = _names()
_NESTED_NAMES = {name: value for name, value in _NAMES.items() if name != ("torch.storage", "_load_from_bytes")}


class DataUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, texts, NumPy arrays and torch tensors.

    Arrays come as :class:`~rlwandb_callbacks.datasets.safe_pickle.arrays.Shell`.

    Args:
        file: Where the pickle begins.
        storage: Finds a torch storage by dtype and key; None where there are none.
        nested: Whether it is within a pickle.
    """

    def __init__(
        self, file: IO[bytes], *, storage: Callable[[str, str], Storage] | None = None, nested: bool = False
    ) -> None:
        super().__init__(file, encoding="latin1")  # for arrays that Python 2 wrote
        self._storage = storage
        self._known = _NESTED_NAMES if nested else _NAMES

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self._known:
            raise ForbiddenNameError(f"{module_name}.{global_name}")
        return self._known[module_name, global_name]

    def persistent_load(self, pid: Any) -> Storage:
        if self._storage is None:
            raise RefusedError("data that lie outside of the file")
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, Inert) or not isinstance(key, str):
            raise RefusedError("a torch storage that is none")
        if len(pid) > 5 and pid[5] is not None:
            raise RefusedError("a view of a torch storage; save it anew with a current torch")
        return self._storage(dtype.meaning, key)


def load_legacy(file: IO[bytes], *, nested: bool = False) -> Any:
    """Reads what torch saved before its zip format, and still pickles for single tensors.

    Four pickles (a magic number, a version, facts on the machine, the object), then the keys of its storages, then the
    count and the bytes of each. Source: torch/serialization.py, ``_legacy_save``.
    """
    storages: dict[str, Storage] = {}

    def find(dtype: str, key: str) -> Storage:
        return storages.setdefault(key, Storage(dtype))

    magic, version, machine = (DataUnpickler(file, nested=True).load() for _ in range(3))
    if magic != LEGACY_MAGIC or version != _LEGACY_PROTOCOL or not machine["little_endian"]:
        raise RefusedError("torch data of an unknown version")
    found = DataUnpickler(file, storage=find, nested=nested).load()
    for key in DataUnpickler(file, nested=True).load():
        (count,) = struct.unpack("<q", file.read(8))
        size = count * storages[key].item_size
        raw = file.read(size) if size >= 0 else b""
        if len(raw) != size:
            raise EOFError("a torch storage is cut off")
        storages[key].raw = raw
    return found
