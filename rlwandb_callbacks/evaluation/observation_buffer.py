"""Observations of an episode within a memory budget."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ObservationBuffer:
    """Observations of an episode: all of them, or every second, fourth, … to stay within a budget.

    Args:
        max_bytes: Memory for the kept observations; 0 to keep none.

    Example:
        >>> buffer = ObservationBuffer(max_bytes=12)
        >>> for number in range(8):
        ...     buffer.append(np.array([number]))
        >>> buffer.kept(7)
        (array([[0.],
               [4.]], dtype=float32), 4)
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: list[NDArray[np.float32]] = []
        self._stride = 1
        self._count = 0

    def append(self, observation: Any) -> None:
        """Adds the next observation."""
        if self._max_bytes and self._count % self._stride == 0:
            self._kept.append(as_array(observation))
            while len(self._kept) > 1 and len(self._kept) * self._kept[0].nbytes > self._max_bytes:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._count += 1

    def kept(self, steps: int) -> tuple[NDArray[np.float32] | None, int]:
        """Returns the kept ones of the first ``steps`` observations, shape ``[N, ...]``, and the steps between them.

        The array is None if nothing was kept, or if the shapes of the observations differ, such as those of graphs.
        """
        kept = self._kept[: -(-steps // self._stride)]
        have_one_shape = len({each.shape for each in kept}) == 1
        return np.stack(kept) if have_one_shape else None, self._stride


def as_array(observation: Any) -> NDArray[np.float32]:
    """Returns an array or number in its own shape, and dicts, tuples and text flattened as by :func:`flat`."""
    if isinstance(observation, dict | tuple | list | str | bytes):
        return flat(observation)
    return np.atleast_1d(np.array(observation, dtype=np.float32))


def flat(observation: Any) -> NDArray[np.float32]:
    """Flattens an observation into one vector; entries of dicts are ordered by key, ``k10`` after ``k9``.

    Data sets of dict observations are read in the same order. Text, such as missions, is left out as it is there.

    Example:
        >>> flat({"b": np.array([[1, 2]]), "a": 0.5})
        array([0.5, 1. , 2. ], dtype=float32)
    """
    if isinstance(observation, dict):
        return np.concatenate([flat(observation[key]) for key in sorted(observation, key=_natural)])
    if isinstance(observation, tuple | list):
        return np.concatenate([flat(entry) for entry in observation])
    if isinstance(observation, str | bytes):
        return np.empty(0, dtype=np.float32)
    return np.array(observation, dtype=np.float32).reshape(-1)


def _natural(key: Any) -> tuple[str, int]:
    stem = str(key).rstrip("0123456789")
    return stem, int(str(key)[len(stem) :] or -1)
