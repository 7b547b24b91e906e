"""Arrays and tensors that are copied and put back in place, and what shows a change of values that are not copied."""

from __future__ import annotations

from collections import deque
from types import GeneratorType
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlwandb_callbacks.policies.iterators import COPYABLE, position

MAX_CHECKED_BYTES = 64 * 2**20  # of larger arrays a sample is compared
MAX_SAMPLED_WORDS = 2**16
MAX_CHECKED_ENTRIES = 2**14  # of longer containers, which are data, the length and the ends are compared
OBSERVATION_MARK = "is_observation_of_evaluation"  # attribute of tensors that policies are called with
Data: TypeAlias = torch.Tensor | NDArray[Any]


def is_data(value: Any) -> TypeGuard[Data]:
    """Returns whether a value is an array that can be written, or a tensor that has a memory of its own."""
    if isinstance(value, np.ndarray):
        has_hidden_objects = value.dtype.hasobject and value.dtype.kind != "O"
        return value.flags.writeable and not has_hidden_objects
    if not isinstance(value, torch.Tensor) or nn.parameter.is_lazy(value):
        return False
    return value.layout is torch.strided and value.device.type != "meta"


def copy_data(data: Data) -> Data:
    """Copies an array, or a tensor on its device without its history."""
    return data.detach().clone() if isinstance(data, torch.Tensor) else data.copy()


def restore_data(data: Data, copied: Data) -> None:
    """Writes a copy back, if the data differ from it."""
    if isinstance(data, torch.Tensor) and isinstance(copied, torch.Tensor):
        if not _are_equal_tensors(data, copied):
            with torch.inference_mode(data.is_inference()), torch.no_grad():
                if data.shape == copied.shape:
                    data.copy_(copied)
                else:
                    data.data = copied
    elif isinstance(data, np.ndarray) and not _are_equal_arrays(data, np.asarray(copied)):
        data[...] = np.asarray(copied)


def outline(value: Any) -> Any:
    """Returns what shows most changes of a value that is not copied; None for values that are not compared."""
    if isinstance(value, torch.Tensor):  # the version is public in PyTorch's documentation of autograd
        return None if nn.parameter.is_lazy(value) or value.is_inference() else value._version  # noqa: SLF001  # see above
    if isinstance(value, np.ndarray):
        return None if isinstance(value, np.memmap) or not value.flags.c_contiguous else _checksum(value)
    if isinstance(value, dict | list | deque | set):
        return _outline_of_entries(value)
    if isinstance(value, GeneratorType):
        frame = value.gi_frame
        return None if frame is None else (frame.f_lasti, repr(list(map(_plain, frame.f_locals.values()))))
    return position(value) if type(value) in COPYABLE else None


def _outline_of_entries(container: dict[Any, Any] | list[Any] | deque[Any] | set[Any]) -> Any:
    entries: Any = container.values() if isinstance(container, dict) else container
    if len(entries) <= MAX_CHECKED_ENTRIES:
        return len(entries), id(next(iter(entries), None)), sum(map(id, entries))
    ends = () if isinstance(entries, set) else (next(iter(entries)), next(reversed(entries)))
    return len(entries), [id(entry) for entry in ends]


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else id(value)


def _checksum(array: NDArray[Any]) -> tuple[int, int]:
    data = array.reshape(-1).view(np.uint8)
    words = data[: data.size // 8 * 8].view(np.uint64)
    if array.nbytes > MAX_CHECKED_BYTES:
        words = words[:: words.size // MAX_SAMPLED_WORDS]
    return int(words.sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(words))


def _are_equal_arrays(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.dtype.kind == "O":
        return [id(entry) for entry in first.flat] == [id(entry) for entry in second.flat]
    if first.dtype.kind == "V":
        return first.tobytes() == second.tobytes()
    return np.array_equal(first, second, equal_nan=first.dtype.kind in "fcmM")


def _are_equal_tensors(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Returns whether two tensors have the same values, NaN being equal to NaN."""
    if first.shape != second.shape:
        return False
    return torch.equal(first, second) or bool(((first == second) | (first.isnan() & second.isnan())).all())
