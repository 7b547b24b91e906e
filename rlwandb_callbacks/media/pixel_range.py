"""Conversion of frames of any dtype to ``uint8``, by one range of values for all frames of a film."""

from __future__ import annotations

import numpy as np

from rlwandb_callbacks.core.values import Pixels, RawFrame
from rlwandb_callbacks.errors import RenderError

MAX_OVERSHOOT = 0.1  # of interpolated floats beyond their range, as part of it; they are clipped
BLACK = 0.5 / 255  # largest float in [0, 1] that becomes 0


class PixelRangeError(RenderError):
    """Floats that were taken to be in [0, 1] turn out to be in [0, 255]; frames must be converted again."""


class PixelRange:
    """Range of the pixels of one film, found from its frames.

    ``uint8`` and other integers are in 0..255, booleans are black and white. Floats are in [0, 1], unless a larger
    value comes: then all frames are in [0, 255].

    Example:
        >>> pixels = PixelRange()
        >>> pixels.to_uint8(np.array([0.0, 0.2, 1.0])), pixels.to_uint8(np.array([False, True]))
        (array([  0,  51, 255], dtype=uint8), array([  0, 255], dtype=uint8))
    """

    def __init__(self) -> None:
        self._largest = 1.0  # value of white, for floats
        self._has_converted = False  # floats, of which not all were black

    def to_uint8(self, frame: RawFrame) -> Pixels:
        """Converts a frame; the result is contiguous.

        Raises:
            PixelRangeError: If the frame shows that earlier frames were converted by another range. The next
                conversions use the right one.
            RenderError: If its values cannot be pixels.
        """
        kind = frame.dtype.kind
        if frame.dtype == np.uint8:
            return np.ascontiguousarray(frame)
        if kind == "b":
            return np.ascontiguousarray(frame * np.uint8(255))
        if kind not in "iuf" or not frame.size:
            raise RenderError(f"The environment's render() returned pixels of dtype {frame.dtype}. {ALLOWED}")
        low, high = float(frame.min()), float(frame.max())
        if kind == "f":
            self._observe(high)
        white, overshoot = (self._largest, MAX_OVERSHOOT) if kind == "f" else (255.0, 0.0)
        if not (-overshoot * white <= low and high <= (1 + overshoot) * white):  # also if they are NaN
            raise RenderError(
                f"The environment's render() returned pixels of dtype {frame.dtype} with values from {low:g} to "
                f"{high:g}. {ALLOWED}"
            )
        scaled = np.clip(frame, 0, white) if white == 255 else np.clip(frame, 0, 1) * 255
        return np.ascontiguousarray(np.rint(scaled), dtype=np.uint8)

    def _observe(self, high: float) -> None:
        if self._largest == 1 and high > 1 + MAX_OVERSHOOT:
            self._largest = 255.0
            if self._has_converted:
                raise PixelRangeError(
                    f"The environment's render() returned floats in [0, 1] and then up to {high:g}; all frames of an "
                    "episode must have one range."
                )
        self._has_converted |= high > BLACK


ALLOWED = (
    "It must return integers from 0 to 255 (uint8), booleans, or floats in [0, 1] or in [0, 255], without NaN. Scale "
    "them in render()."
)


def corrected(pixels: Pixels) -> Pixels:
    """Corrects pixels that were converted as floats in [0, 1] and are in [0, 255], where they are almost black.

    Example:
        >>> corrected(np.array([0, 120, 130, 255], np.uint8))
        array([0, 0, 1, 1], dtype=uint8)
    """
    return (pixels > 127).astype(np.uint8)


class FlatColor:
    """Follows whether all pixels of a film have one and the same color, as if nothing was drawn.

    Example:
        >>> flat = FlatColor()
        >>> flat.add(np.zeros((4, 4, 3), np.uint8))
        >>> flat.color
        (0, 0, 0)
        >>> flat.add(np.full((4, 4, 3), 9, np.uint8))
        >>> flat.color is None
        True
    """

    MAX_DIFFERENCE = 2  # of a channel, which the eye does not see

    def __init__(self) -> None:
        self.color: tuple[int, int, int] | None = None  # of all frames so far; None if they differ
        self._has_frames = False

    def add(self, frame: Pixels) -> None:
        """Takes the next frame of the film."""
        if not self._has_frames:
            red, green, blue = frame[0, 0].tolist()
            self.color, self._has_frames = (red, green, blue), True
        if self.color is not None:
            difference = np.abs(frame.astype(np.int16) - np.array(self.color, np.int16))
            self.color = self.color if difference.max() <= self.MAX_DIFFERENCE else None
