"""Arrays and tensors as a pickle describes them, built from their bytes by code that checks every number.

Only these functions are called while a pickle is read, and their arguments are chosen by whoever wrote the file.
NumPy's own ``__setstate__`` trusts its arguments: therefore arrays stay in shells, out of its sight, until all is read.
"""

from __future__ import annotations

import math
import re
from typing import Any, TypeAlias

import numpy as np

AnyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_DTYPE = re.compile(r"[<>=|]?([?]|b1|[iuf][1248])")
_TORCH_DTYPES = {
    "float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "bfloat16", "int64": "<i8", "int32": "<i4",
    "int16": "<i2", "int8": "|i1", "uint8": "|u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8", "bool": "|b1",
}  # fmt: skip
_STORAGES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
_MAX_EXPANDED = 2**20


class RefusedError(ValueError):
    """The pickle holds something that is neither a number, a text, a container nor an array."""


class Inert:
    """A name that means something as an argument only: it has no attributes and cannot be called.

    Args:
        meaning: What it stands for.
    """

    __slots__ = ("meaning",)

    def __init__(self, meaning: str) -> None:
        self.meaning = meaning

    def __setstate__(self, state: object) -> None:
        raise RefusedError("a state for a name")


def torch_names() -> dict[tuple[str, str], Inert]:
    """What torch calls its dtypes and storages."""
    names = {("torch", name): Inert(dtype) for name, dtype in _TORCH_DTYPES.items()}
    names |= {("torch", f"{name}Storage"): Inert(_TORCH_DTYPES[dtype]) for name, dtype in _STORAGES.items()}
    untyped = Inert("|u1")
    return names | {("torch", "UntypedStorage"): untyped, ("torch.storage", "UntypedStorage"): untyped}


class DType:
    """A NumPy dtype of numbers or bools; its byte order may follow as a state."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise RefusedError("records or objects in an array")
        if order in "<>":
            self._text = order + self._text.lstrip("<>=|")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype itself."""
        return np.dtype(self._text)


def dtype_named(text: object, *_: object) -> DType:
    """Stands for ``numpy.dtype``."""
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise RefusedError(f"an array of {text!r}; allowed are arrays of numbers and bools")
    return DType(text)


class Shell:
    """Holds an array out of the reach of the pickle that describes it."""

    __slots__ = ("_array",)

    def __init__(self, array: AnyArray | None = None) -> None:
        self._array = array

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, data = state
        if not isinstance(dtype, DType) or not isinstance(data, (bytes, bytearray, str)):
            raise RefusedError("an array of objects; allowed are arrays of numbers and bools")
        raw = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote it
        self._array = _shaped(raw, dtype.dtype, shape, "F" if column_major else "C")

    @property
    def array(self) -> AnyArray:
        """The array, once it is described completely."""
        if self._array is None:
            raise RefusedError("an array without data")
        return self._array


def _shaped(raw: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> AnyArray:
    if order not in ("C", "F"):
        raise RefusedError(f"an array in the order {order!r}")
    sizes = tuple(_count(size) for size in shape)
    flat: AnyArray = np.frombuffer(bytes(raw), dtype=dtype) if len(raw) else np.empty(0, dtype=dtype)
    return flat.reshape(sizes, order="C" if order == "C" else "F")


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise RefusedError(f"an array of size {value!r}")
    return value


def empty_shell(*_: object) -> Shell:
    """Stands for NumPy's ``_reconstruct``: the data follow as a state."""
    return Shell()


def array_from_buffer(raw: object, dtype: object, shape: object, order: object, *_: object) -> Shell:
    """Stands for NumPy's ``_frombuffer``."""
    if not isinstance(dtype, DType) or not isinstance(raw, (bytes, bytearray)):
        raise RefusedError("an array of objects; allowed are arrays of numbers and bools")
    return Shell(_shaped(raw, dtype.dtype, shape, order))


def scalar(dtype: object, raw: object) -> Shell:
    """Stands for NumPy's ``scalar``."""
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(dtype, DType) or not isinstance(data, bytes):
        raise RefusedError("a NumPy scalar that is no number")
    return Shell(_shaped(data, dtype.dtype, (), "C"))


def encode(text: object, encoding: object = "latin1") -> bytes:
    """Stands for ``_codecs.encode``, by which early protocols write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


class Storage:
    """The numbers of torch tensors, which may follow later.

    Args:
        dtype: As in :func:`torch_names`.
        raw: Bytes, where they are known.
    """

    __slots__ = ("dtype", "raw")

    def __init__(self, dtype: str, raw: bytes | None = None) -> None:
        self.dtype = dtype
        self.raw = raw

    def __setstate__(self, state: object) -> None:
        raise RefusedError("a state for a torch storage")

    @property
    def item_size(self) -> int:
        """Bytes per number."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    def numbers(self, dtype: str) -> AnyArray:
        """All numbers, in one row; bfloat16 as float32."""
        if self.raw is None:
            raise RefusedError("a torch tensor without data")
        if dtype == "bfloat16":
            return (np.frombuffer(self.raw, dtype="<u2").astype("<u4") << 16).view("<f4")
        return np.frombuffer(self.raw, dtype=dtype)


class TensorShell(Shell):
    """A torch tensor; becomes an array when its storage has its numbers."""

    __slots__ = ("_dtype", "_layout", "_storage")

    def __init__(self, storage: Storage, dtype: str, layout: tuple[int, tuple[int, ...], tuple[int, ...]]) -> None:
        super().__init__()
        self._storage, self._dtype, self._layout = storage, dtype, layout

    def __setstate__(self, state: object) -> None:
        raise RefusedError("a state for a torch tensor")

    @property
    def array(self) -> AnyArray:
        numbers = self._storage.numbers(self._dtype)
        offset, size, stride = self._layout
        if 0 in size:
            return np.empty(size, dtype=numbers.dtype)
        last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
        if last >= len(numbers) or math.prod(size) > max(len(numbers), _MAX_EXPANDED):
            raise RefusedError("a torch tensor that reaches beyond its storage")
        steps = tuple(step * numbers.itemsize for step in stride)
        return np.array(np.lib.stride_tricks.as_strided(numbers[offset:], size, steps))


def rebuild_tensor(storage: object, offset: object, size: Any, stride: Any, *_: object) -> TensorShell:
    """Stands for torch's ``_rebuild_tensor`` and ``_rebuild_tensor_v2``."""
    if not isinstance(storage, Storage):
        raise RefusedError("a torch tensor without a storage")
    return _tensor(storage, storage.dtype, offset, size, stride)


def rebuild_tensor_of_dtype(storage: object, offset: object, size: Any, stride: Any, *others: object) -> TensorShell:
    """Stands for torch's ``_rebuild_tensor_v3``."""
    dtype = others[2]  # behind requires_grad and the hooks
    if not isinstance(storage, Storage) or not isinstance(dtype, Inert):
        raise RefusedError("a torch tensor without a storage or a dtype")
    return _tensor(storage, dtype.meaning, offset, size, stride)


def _tensor(storage: Storage, dtype: str, offset: object, size: Any, stride: Any) -> TensorShell:
    layout = _count(offset), tuple(map(_count, size)), tuple(map(_count, stride))
    if len(layout[1]) != len(layout[2]):
        raise RefusedError("a torch tensor whose strides do not fit its shape")
    return TensorShell(storage, dtype, layout)


def rebuild_parameter(data: object, *_: object) -> object:
    """Stands for torch's ``_rebuild_parameter``: the tensor in it."""
    return data
