"""Observations that are pictures, made small enough to be compared by the thousand."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MIN_SIDE = 16
MAX_NUMBERS = 2_048
CHUNK_ROWS = 256


def is_picture(shape: tuple[int, ...]) -> bool:
    """Tells whether observations of a shape are pictures: two sides of at least 16.

    Example:
        >>> is_picture((4, 84, 84)), is_picture((64, 64, 3)), is_picture((4, 17))
        (True, True, False)
    """
    return len(shape) in (2, 3) and sum(side >= MIN_SIDE for side in shape) >= 2


def shrink(pictures: NDArray[np.generic]) -> NDArray[np.float32]:
    """Averages blocks of pixels, until at most about 2,048 numbers are left of each picture.

    Args:
        pictures: Shape ``[K, H, W]``, ``[K, H, W, C]`` or ``[K, C, H, W]``.

    Returns:
        Shape ``[K, F]``.

    Example:
        >>> shrink(np.zeros((3, 84, 84, 4))).shape
        (3, 1764)
    """
    sides = np.argsort([-side for side in pictures.shape[1:]], kind="stable")[:2] + 1
    block = math.ceil(math.sqrt(math.prod(pictures.shape[1:]) / MAX_NUMBERS))
    chunks = [pictures[start : start + CHUNK_ROWS] for start in range(0, len(pictures), CHUNK_ROWS)]
    return np.concatenate([_average(chunk, sorted(sides.tolist()), block).reshape(len(chunk), -1) for chunk in chunks])


def _average(pictures: NDArray[np.generic], axes: list[int], block: int) -> NDArray[np.float32]:
    averaged: NDArray[np.float32] = pictures.astype(np.float32)
    for axis in axes:
        starts = np.arange(0, averaged.shape[axis], block)
        sizes = np.diff([*starts, averaged.shape[axis]]).astype(np.float32)
        totals = np.add.reduceat(averaged, starts, axis=axis)
        averaged = np.asarray(totals / sizes.reshape([-1 if i == axis else 1 for i in range(totals.ndim)]))
    return averaged
