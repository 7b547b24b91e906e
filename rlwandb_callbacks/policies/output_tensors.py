"""Tensors as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats


def softmax(logits: Floats) -> Floats:
    """Computes the softmax over the last axis, shifted by the maximum so that no finite input overflows."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def is_array(value: Any) -> bool:
    """Returns whether a value is a tensor or a numpy array."""
    return isinstance(value, torch.Tensor | np.ndarray)


def to_numpy(value: Any) -> NDArray[Any]:
    """Copies a tensor on any device, or an array, to numpy; bfloat16 becomes float32, ragged lists one object."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        copied: NDArray[Any] = (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy().copy()
        return copied
    try:
        return np.array(value)
    except ValueError:  # entries of unequal shapes
        ragged: NDArray[Any] = np.empty((), dtype=object)
        ragged[()] = value
        return ragged


def as_arrays(value: Any) -> Any:
    """Copies a tensor to numpy, or each tensor of a list or tuple of tensors; other values stay as they are."""
    if isinstance(value, list | tuple):
        return [to_numpy(part) for part in value] if all(map(is_array, value)) else value
    return to_numpy(value) if is_array(value) else value


def as_integers(value: Any) -> NDArray[Any]:
    """Converts floats that are all whole numbers to int64; other values keep their dtype."""
    array = to_numpy(value)
    is_whole = array.dtype.kind == "f" and bool(np.all(np.isfinite(array) & (array == np.rint(array))))
    return array.astype(np.int64) if is_whole else array
