"""Reads pickles that hold data, and refuses all others.

Unpickling calls every function that the file names. Here each allowed name stands for a function of this package that
builds a plain container or an array and nothing else; the unpickling of NumPy is not called, that of torch only with
``weights_only``, and a name that is not on the list ends the reading before anything is called.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from rlwandb_callbacks.datasets.safe_pickle.arrays import (
    ArrayShell,
    DType,
    RefusedError,
    array_from_buffer,
    dtype_named,
    empty_shell,
    encode,
    scalar,
)
from rlwandb_callbacks.datasets.safe_pickle.tensors import (
    ForbiddenNameError,
    rebuild_tensor,
    storage_from_bytes,
)


class _Replacement:
    """A function of this package under the name that pickles use; nothing can be stored in it.

    Args:
        function: The function that is called instead.
        module: Module of the name, under which torch finds it too.
        name: Name within the module.
    """

    def __init__(self, function: Callable[..., Any], module: str, name: str) -> None:
        self._function = function
        self.__module__ = module
        self.__name__ = self.__qualname__ = name

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


def _deque(items: object = (), _max_length: object = None) -> list[Any]:
    return _items(items)


def _device(kind: object, index: object = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, (int, type(None))):
        raise RefusedError("a torch device that is not one")
    return kind if index is None else f"{kind}:{index}"


def _refuse_call(*_: object) -> None:
    raise RefusedError("a call of a name that is only an argument")


_Names = dict[tuple[str, str], Callable[..., Any]]


def _plain_names() -> _Names:
    names: _Names = {
        ("_codecs", "encode"): encode,
        ("collections", "OrderedDict"): lambda *args: dict(_items(*args)),
        ("collections", "deque"): _deque,
        ("numpy", "dtype"): dtype_named,
        ("numpy", "ndarray"): _refuse_call,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = empty_shell
        names[f"{core}.multiarray", "scalar"] = scalar
        names[f"{core}.numeric", "_frombuffer"] = array_from_buffer
    for builtins in ("builtins", "__builtin__"):  # the latter in protocols that Python 2 can read
        names |= {(builtins, name): _bytes for name in ("bytes", "bytearray")}
        names |= {(builtins, name): lambda *args: set(_items(*args)) for name in ("set", "frozenset")}
    return names


def _torch_names() -> _Names:
    return {
        ("torch", "Size"): lambda *args: tuple(_items(*args)),
        ("torch", "device"): _device,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _refuse_call,  # torch cannot read its storages
        ("torch.storage", "_load_from_bytes"): storage_from_bytes,
    }


def _replacements(names: _Names) -> dict[tuple[str, str], _Replacement]:
    return {(module, name): _Replacement(function, module, name) for (module, name), function in names.items()}


_PLAIN = _replacements(_plain_names())
_ALL = _PLAIN | _replacements(_torch_names())
_TORCH_NAMES_LOCK = threading.RLock()


class DataUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, texts, NumPy arrays and torch tensors.

    Arrays and tensors become :class:`~rlwandb_callbacks.datasets.safe_pickle.arrays.ArrayShell`.

    Args:
        file: Where the pickle begins.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")  # for arrays that Python 2 wrote

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _ALL:
            raise ForbiddenNameError(f"{module_name}.{global_name}")
        return _ALL[module_name, global_name]


@contextmanager
def only_our_names_in_torch() -> Iterator[None]:
    """Lets ``torch.load(weights_only=True)`` use the same names for arrays and containers, and no others.

    Names that the program has registered with torch are set aside meanwhile: a data set must not call them, and of two
    registrations of one name torch takes either. They are process-wide, so that one file is read at a time.
    """
    from torch import serialization

    with _TORCH_NAMES_LOCK:
        registered = list(serialization.get_safe_globals())
        serialization.clear_safe_globals()
        serialization.add_safe_globals([*_PLAIN.values(), ArrayShell, DType])
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(registered)
