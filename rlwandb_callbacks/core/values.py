"""Values that can be logged: a closed union, so that mypy can check that a tracker handles every type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
"""An image: RGB, shape ``[H, W, 3]``, ``uint8``."""

RawFrame: TypeAlias = NDArray[Any]
"""A frame as an environment returns it: RGB, shape ``[H, W, 3]``, of any dtype."""

DEFAULT_FPS = 30.0
"""Frames per second of a video if the environment has no ``render_fps``."""


@dataclass(frozen=True)
class Scalar:
    """One number; NaN and infinities are allowed."""

    value: float


@dataclass(frozen=True)
class Histogram:
    """Counts over N adjacent bins."""

    counts: NDArray[np.generic]  # integers or floats ≥ 0, shape [N]
    edges: NDArray[np.float64]  # ascending, shape [N + 1], in the unit of the samples


@dataclass(frozen=True)
class Image:
    """An image, and the text below it."""

    pixels: Pixels
    caption: str = ""


@dataclass(frozen=True)
class Video:
    """A video file, and the text below it."""

    path: str  # of an mp4 file (H.264, yuv420p)
    caption: str = ""
    flat_color: tuple[int, int, int] | None = None  # RGB, if all frames have one color, as if nothing was drawn


@dataclass(frozen=True)
class Table:
    """A table: names of the columns, and rows of the same length."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[float | int | str | bool | None, ...]]


@dataclass(frozen=True)
class Html:
    """The source of an HTML page that contains its scripts and data."""

    text: str


Value: TypeAlias = Scalar | Histogram | Image | Video | Table | Html
