"""Keeps frames out of memory: compressed without loss in one temporary file."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from typing_extensions import Self

from rlwandb_callbacks.core.canvas import Pixels


@dataclass(frozen=True)
class FrameKey:
    """Where a frame lies in the file, and its shape."""

    offset: int
    size: int
    shape: tuple[int, ...]


class FrameStore:
    """Takes frames of many episodes at a time and gives them back in any order; the file goes away on closing.

    Args:
        folder: Where the file lies; by default the system's.

    Example:
        >>> with FrameStore() as store:
        ...     key = store.append(np.ones((2, 2, 3), np.uint8))
        ...     int(next(store.frames([key])).sum())
        12
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, prefix="frames_")  # noqa: SIM115  # closed by close()
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, frame: Pixels) -> FrameKey:
        """Stores one frame of shape ``[H, W, 3]`` and returns the key to it."""
        packed = zlib.compress(frame.tobytes(), level=1)
        self._file.seek(self._end)
        self._file.write(packed)
        key = FrameKey(self._end, len(packed), frame.shape)
        self._end += len(packed)
        return key

    def frames(self, keys: Iterable[FrameKey]) -> Generator[Pixels]:
        """Gives frames back one by one."""
        for key in keys:
            self._file.seek(key.offset)
            pixels = np.frombuffer(zlib.decompress(self._file.read(key.size)), dtype=np.uint8)
            yield pixels.reshape(key.shape)

    def close(self) -> None:
        """Deletes the file."""
        self._file.close()
