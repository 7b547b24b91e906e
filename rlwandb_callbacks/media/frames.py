"""Frames of episodes that cannot be made again: recorded while playing, or brought along, within a budget of bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.errors import RenderError


class FrameSource(Protocol):
    """The frames of one episode, to be gone through once or more.

    Attributes:
        steps: The step that each frame shows, ascending; 0 is the first state and the episode's length the last.
    """

    @property
    def steps(self) -> Sequence[int]: ...

    def __iter__(self) -> Iterator[Pixels]: ...


@dataclass(frozen=True)
class RecordedFrames:
    """Frames that were kept, compressed without loss.

    Args:
        steps: The step that each frame shows.
        packed: The frames' bytes, by zlib.
        shapes: Of the frames, ``[H, W, 3]`` each.
    """

    steps: tuple[int, ...]
    packed: tuple[bytes, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __iter__(self) -> Iterator[Pixels]:
        for packed, shape in zip(self.packed, self.shapes, strict=True):
            yield np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(shape)

    @property
    def bytes(self) -> int:
        """What the compressed frames take."""
        return sum(map(len, self.packed))


@dataclass(frozen=True)
class MissingFrames:
    """Stands for the frames of an episode whose environment failed to render on the way.

    Args:
        reason: Told by whoever wants to see them.
    """

    reason: str

    @property
    def steps(self) -> Sequence[int]:
        """None."""
        return ()

    def __iter__(self) -> Iterator[Pixels]:
        raise RenderError(self.reason)


class FrameRecorder:
    """Records one episode.

    Whenever the budget is used up, every second frame is dropped and only every second one of the following is kept.

    Args:
        max_bytes: Compressed frames that may be kept, > 0. The first and the last frame always are.

    Example:
        >>> camera = FrameRecorder(max_bytes=40)
        >>> for shade in range(7):
        ...     camera.take(np.full((4, 4, 3), shade, np.uint8))
        >>> camera.film().steps
        (0, 4, 6)
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: list[tuple[int, bytes, tuple[int, ...]]] = []
        self._bytes = 0
        self._stride = 1
        self._step = -1
        self._latest: Pixels | None = None

    def take(self, frame: Pixels) -> None:
        """Takes the frame of the next step, of shape ``[H, W, 3]``, ``uint8``."""
        self._step += 1
        self._latest = frame
        if self._step % self._stride == 0:
            self._keep(frame)
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self._kept = self._kept[::2]
            self._bytes = sum(len(packed) for _, packed, _ in self._kept)
            self._stride *= 2

    def _keep(self, frame: Pixels) -> None:
        packed = zlib.compress(frame.tobytes(), level=1)
        self._kept.append((self._step, packed, frame.shape))
        self._bytes += len(packed)

    def film(self) -> RecordedFrames:
        """What was recorded so far, the latest frame included."""
        if self._latest is not None and self._kept[-1][0] != self._step:
            self._keep(self._latest)
        steps, packed, shapes = zip(*self._kept, strict=True) if self._kept else ((), (), ())
        return RecordedFrames(tuple(steps), tuple(packed), tuple(shapes))


@dataclass(frozen=True)
class ArrayFrames:
    """Frames that an episode brought along.

    Args:
        frames: Shape ``[F, H, W, 3]``.
        steps: The step that each of them shows.
    """

    frames: NDArray[np.uint8]
    steps: tuple[int, ...]

    @classmethod
    def of(cls, frames: NDArray[np.uint8], *, max_bytes: int) -> ArrayFrames:
        """Takes as many frames as fit, evenly, the first and the last among them.

        Args:
            frames: Shape ``[T + 1, H, W, 3]``, one for each state.
            max_bytes: What they may take.
        """
        stride = max(1, -(-frames.nbytes // max_bytes))
        last = len(frames) - 1
        steps = tuple(sorted({*range(0, len(frames), stride), last}))
        return cls(frames if stride == 1 else frames[list(steps)], steps)

    def __iter__(self) -> Iterator[Pixels]:
        yield from self.frames
