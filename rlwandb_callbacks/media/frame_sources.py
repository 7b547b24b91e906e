"""Frames of episodes that cannot be replayed: recorded while playing, or part of an episode, within a memory budget."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.values import Pixels, RawFrame
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.media.pixel_range import PixelRange, PixelRangeError, corrected


class FrameSource(Protocol):
    """Frames of one episode, which can be iterated over several times."""

    @property
    def steps(self) -> Sequence[int]:
        """Step that each frame shows, ascending; 0 is the first state and the episode's length the last."""

    def __iter__(self) -> Generator[Pixels]: ...


@dataclass(frozen=True)
class RecordedFrames:
    """Frames that are kept in memory with lossless compression."""

    steps: tuple[int, ...]
    packed: tuple[bytes, ...]  # by zlib
    shapes: tuple[tuple[int, ...], ...]

    def __iter__(self) -> Generator[Pixels]:
        for packed, shape in zip(self.packed, self.shapes, strict=True):
            yield _unpacked(packed, shape)


def _packed(frame: Pixels) -> bytes:
    return zlib.compress(frame.tobytes(), level=1)


def _unpacked(packed: bytes, shape: tuple[int, ...]) -> Pixels:
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)


@dataclass(frozen=True)
class MissingFrames:
    """Placeholder for the frames of an episode whose environment failed to render."""

    reason: str  # message of the error that iteration raises
    steps: Sequence[int] = ()

    def __iter__(self) -> Generator[Pixels]:
        raise RenderError(self.reason)


class FrameRecorder:
    """Records the frames of one episode.

    Whenever they exceed the budget, every second frame is dropped, and from then on only every second one is kept.

    Args:
        max_bytes: Budget for compressed frames, > 0. The first and the last frame are always kept.

    Example:
        >>> recorder = FrameRecorder(max_bytes=40)
        >>> for shade in range(7):
        ...     recorder.append(np.full((4, 4, 3), shade, np.uint8))
        >>> recorder.result().steps
        (0, 4, 6)
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._range = PixelRange()
        self._kept: list[tuple[int, bytes, tuple[int, ...]]] = []
        self._bytes = 0
        self._stride = 1
        self._step = -1
        self._latest: Pixels | None = None

    def append(self, frame: RawFrame) -> None:
        """Adds the frame of the next step, of shape ``[H, W, 3]``.

        Raises:
            RenderError: If its values cannot be pixels.
        """
        try:
            pixels = self._range.to_uint8(frame)
        except PixelRangeError:
            self._correct_kept()
            pixels = self._range.to_uint8(frame)
        self._step += 1
        self._latest = pixels
        if self._step % self._stride == 0:
            self._keep(pixels)
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self._kept = self._kept[::2]
            self._bytes = sum(len(packed) for _, packed, _ in self._kept)
            self._stride *= 2

    def _correct_kept(self) -> None:
        self._kept = [(step, _packed(corrected(_unpacked(packed, shape))), shape) for step, packed, shape in self._kept]
        self._bytes = sum(len(packed) for _, packed, _ in self._kept)

    def _keep(self, frame: Pixels) -> None:
        packed = _packed(frame)
        self._kept.append((self._step, packed, frame.shape))
        self._bytes += len(packed)

    def result(self) -> RecordedFrames:
        """Returns the kept frames, the latest one included."""
        if self._latest is not None and self._kept[-1][0] != self._step:
            self._keep(self._latest)
        steps, packed, shapes = zip(*self._kept, strict=True) if self._kept else ((), (), ())
        return RecordedFrames(tuple(steps), tuple(packed), tuple(shapes))


@dataclass(frozen=True)
class ArrayFrames:
    """Frames in one array, as episodes without an environment have them."""

    frames: NDArray[np.uint8]  # [F, H, W, 3]
    steps: tuple[int, ...]

    @classmethod
    def thinned(cls, frames: NDArray[Any], *, max_bytes: int) -> ArrayFrames:
        """Takes as many evenly spaced frames of an episode as fit, the first and the last included.

        Raises:
            RenderError: If they are not RGB, or their values cannot be pixels.
        """
        if frames.ndim != 4 or frames.shape[-1] != 3:
            raise RenderError(f"Episode.frames has the shape {frames.shape}; it must be [T + 1, H, W, 3] (RGB).")
        stride = max(1, -(-frames.size // max_bytes))
        steps = tuple(sorted({*range(0, len(frames), stride), len(frames) - 1}))
        return cls(PixelRange().to_uint8(frames if stride == 1 else frames[list(steps)]), steps)

    def __iter__(self) -> Generator[Pixels]:
        yield from self.frames
