"""Observations of an episode, kept within a budget of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ObservationBuffer:
    """Keeps every observation of an episode, and every second, fourth, … where they would grow beyond a budget.

    Args:
        max_bytes: Of what is kept.

    Example:
        >>> trace = ObservationBuffer(max_bytes=12)
        >>> for number in range(8):
        ...     trace.append(np.array([number]))
        >>> trace.kept(7)
        (array([[0.],
               [4.]], dtype=float32), 4)
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: list[NDArray[np.float32]] = []
        self._stride = 1
        self._seen = 0

    def append(self, observation: Any) -> None:
        """Takes the next observation."""
        if self._seen % self._stride == 0:
            self._kept.append(as_array(observation))
            while len(self._kept) > 1 and len(self._kept) * self._kept[0].nbytes > self._max_bytes:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def kept(self, steps: int) -> tuple[NDArray[np.float32] | None, int]:
        """Those of the first ``steps`` observations that were kept, ``[N, ...]``, and the steps between two of them.

        None instead of the former where their shapes differ, such as those of graphs.
        """
        kept = self._kept[: -(-steps // self._stride)]
        are_alike = len({each.shape for each in kept}) == 1
        return np.stack(kept) if are_alike else None, self._stride


def as_array(observation: Any) -> NDArray[np.float32]:
    """An observation in its own shape, if it is an array or a number; dicts, tuples and texts as :func:`flat`."""
    if isinstance(observation, dict | tuple | list | str | bytes):
        return flat(observation)
    return np.atleast_1d(np.array(observation, dtype=np.float32))


def flat(observation: Any) -> NDArray[np.float32]:
    """An observation as one vector; the entries of dicts in the order of their keys, ``k10`` behind ``k9``.

    It is the order in which data sets of dict observations are read. Texts, such as missions, are left out as there.

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
