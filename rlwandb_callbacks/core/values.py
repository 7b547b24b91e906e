"""What can be logged: a closed union, so that mypy proves that every tracker handles every kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
"""A picture: ``[H, W, 3]``, ``uint8``, RGB."""

DEFAULT_FPS = 30.0
"""Frames per second of a video whose environment names no ``render_fps``."""


@dataclass(frozen=True)
class Scalar:
    """One number.

    Args:
        value: Any float, NaN and infinities included.
    """

    value: float


@dataclass(frozen=True)
class Histogram:
    """Counts over adjacent bins.

    Args:
        counts: Shape ``[N]``, integers or floats ≥ 0.
        edges: Shape ``[N + 1]``, ascending, in the unit of the counted quantity.
    """

    counts: NDArray[np.generic]
    edges: NDArray[np.float64]


@dataclass(frozen=True)
class Image:
    """A picture.

    Args:
        pixels: Shape ``[H, W, 3]``, ``uint8`` RGB.
        caption: Text under the picture.
    """

    pixels: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class Video:
    """A video file that is ready to be shown.

    Args:
        path: An mp4 file (H.264, yuv420p) on disk.
        caption: Text under the video.
    """

    path: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Args:
        columns: Column names, ``C`` of them.
        rows: Each of length ``C``; numbers, strings, booleans or None.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[float | int | str | bool | None, ...]]


@dataclass(frozen=True)
class Html:
    """A page that needs nothing but itself: scripts and data are in it.

    Args:
        text: The whole page.
    """

    text: str


Value: TypeAlias = Scalar | Histogram | Image | Video | Table | Html
