"""NumPy arrays as a pickle describes them, built from their bytes by code that checks every number.

Only these functions are called for arrays while a pickle is read, and the author of the file chooses their arguments.
NumPy's own ``__setstate__`` trusts its arguments: therefore arrays stay in an :class:`ArrayShell`, out of reach of the
pickle, until all of it is read.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import numpy as np

AnyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_DTYPE = re.compile(r"[<>=|]?([?]|b1|[iuf][1248])")


class RefusedError(ValueError):
    """The pickle holds something that is neither a number, a text, a container nor an array."""


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
    """Replaces ``numpy.dtype``."""
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise RefusedError(f"an array of {text!r}; allowed are arrays of numbers and bools")
    return DType(text)


class ArrayShell:
    """Holds an array out of the reach of the pickle that describes it."""

    __slots__ = ("_array",)

    def __init__(self, array: AnyArray | None = None) -> None:
        self._array = array

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, data = state
        if not isinstance(dtype, DType) or not isinstance(data, (bytes, bytearray, str)):
            raise RefusedError("an array of objects; allowed are arrays of numbers and bools")
        raw = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote it
        self._array = _reshaped(raw, dtype.dtype, shape, "F" if column_major else "C")

    @property
    def array(self) -> AnyArray:
        """The array, once it is described completely."""
        if not isinstance(self._array, np.ndarray):
            raise RefusedError("an array without data")
        return self._array


def _reshaped(raw: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> AnyArray:
    if order not in ("C", "F"):
        raise RefusedError(f"an array in the order {order!r}")
    if any(type(size) is not int or size < 0 for size in shape):
        raise RefusedError(f"an array of shape {shape!r}")
    flat: AnyArray = np.frombuffer(bytes(raw), dtype=dtype) if len(raw) else np.empty(0, dtype=dtype)
    return flat.reshape(tuple(shape), order="C" if order == "C" else "F")


def empty_shell(*_: object) -> ArrayShell:
    """Replaces NumPy's ``_reconstruct``: the data follow as a state."""
    return ArrayShell()


def array_from_buffer(raw: object, dtype: object, shape: object, order: object, *_: object) -> ArrayShell:
    """Replaces NumPy's ``_frombuffer``."""
    if not isinstance(dtype, DType) or not isinstance(raw, (bytes, bytearray)):
        raise RefusedError("an array of objects; allowed are arrays of numbers and bools")
    return ArrayShell(_reshaped(raw, dtype.dtype, shape, order))


def scalar(dtype: object, raw: object) -> ArrayShell:
    """Replaces NumPy's ``scalar``."""
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(dtype, DType) or not isinstance(data, bytes):
        raise RefusedError("a NumPy scalar that is not a number")
    return ArrayShell(_reshaped(data, dtype.dtype, (), "C"))


def encode(text: object, encoding: object = "latin1") -> bytes:
    """Replaces ``_codecs.encode``, which early protocols use for bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")
