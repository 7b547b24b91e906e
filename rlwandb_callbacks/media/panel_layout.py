"""Geometry of the panel beside a frame, and the axes of its bars."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ContinuousActions
from rlwandb_callbacks.core.episode import Episode, Gaussian
from rlwandb_callbacks.media.drawing import TEXT_HEIGHT

SMALLEST_TEXT = 13
LEGIBLE_TEXT = 15
LABEL_FRACTION = 0.37
LABEL_GAP = 4
LINES_AROUND_ROWS = 6.7  # of the title, numbers, axis and margins, in heights of the font


def axis_of_q_values(values: NDArray[np.float64]) -> tuple[float, float]:
    """Chooses one axis for all q-values of an episode.

    It includes zero, unless all values are far from zero and close to each other: then their differences, which decide
    the action, would not be visible. Non-finite values are ignored.

    Example:
        >>> axis_of_q_values(np.array([1.0, 4.0])), axis_of_q_values(np.array([-3.0, 1.0]))
        ((0.0, 4.0), (-3.0, 1.0))
        >>> axis_of_q_values(np.array([90.0, 100.0]))
        (89.0, 101.0)
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return -1.0, 1.0
    if 0 < low < 0.5 * high:
        return 0.0, high
    if 0.5 * low < high < 0:
        return low, 0.0
    if low > 0 or high < 0:
        margin = 0.1 * (high - low)
        return low - margin, high + margin
    return low, high


def axis_of_actions(spec: ContinuousActions, episode: Episode) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Chooses one axis for each of D action dimensions: its bounds, or the episode's range for an unbounded side."""
    samples = [episode.actions.reshape(episode.length, -1).astype(np.float64)]
    if isinstance(episode.scores, Gaussian):
        mean, spread = (part.reshape(episode.length, -1) for part in (episode.scores.mean, 2 * episode.scores.std))
        samples += [mean - spread, mean + spread]
    finite = np.ma.masked_invalid(np.concatenate(samples))
    lows = np.where(np.isfinite(spec.low), spec.low, finite.min(axis=0).filled(-1.0))
    highs = np.where(np.isfinite(spec.high), spec.high, finite.max(axis=0).filled(1.0))
    return lows, np.where(highs > lows, highs, lows + 1.0)


def legible_height(min_height: int, rows: int) -> int:
    """Returns the height at which the text of rows is as large as the text above them, up to 15 pixels.

    It exceeds ``min_height`` by an even number.

    Example:
        >>> legible_height(400, 2), legible_height(288, 18)
        (400, 418)
    """
    text_size = min(max(min_height // 20, SMALLEST_TEXT), LEGIBLE_TEXT)
    heights = itertools.count(min_height, 2)
    return next(height for height in heights if Geometry(height, rows, 0.0).row_text_size >= text_size)


class Geometry:
    """Positions and sizes on a panel, in pixels; the fractions are those of the width for values and for labels."""

    def __init__(self, height: int, rows: int, value_fraction: float, label_fraction: float = LABEL_FRACTION) -> None:
        self.height, self.rows, self.value_fraction, self.label_fraction = height, rows, value_fraction, label_fraction
        self.width = max(280, round(0.8 * height))
        self.bar_left = round(label_fraction * self.width)
        self.bar_right = round((1 - value_fraction) * self.width)

        fitting_size = int(height / (TEXT_HEIGHT * rows + LINES_AROUND_ROWS))
        self.text_size = min(max(min(height // 20, fitting_size), SMALLEST_TEXT), 40)
        self.line = round(1.3 * self.text_size)
        self.margin = self.text_size // 2
        self.top = self.margin + 3 * self.line + self.margin

        height_of_rows = height - self.top - self.line - self.margin
        self.pitch = max(6, min(height_of_rows // max(1, rows), round(2.2 * self.text_size)))
        self.row_text_size = min(max(int(self.pitch / TEXT_HEIGHT), 6), self.text_size)
        self.bar_half = max(2, round(0.36 * min(self.pitch, 1.6 * self.text_size)))
        self.label_left = self.margin + self.row_text_size
        self.label_width = self.bar_left - self.label_left - LABEL_GAP

    def with_room_for_labels(self, width: int) -> Geometry:
        """Returns a geometry with labels as wide as the widest needs, as long as bars keep a quarter of the panel."""
        needed = (self.label_left + width + LABEL_GAP) / self.width
        label_fraction = min(max(self.label_fraction, needed), 0.75 - self.value_fraction)
        return Geometry(self.height, self.rows, self.value_fraction, label_fraction)

    def row_center(self, row: int) -> int:
        return self.top + row * self.pitch + self.pitch // 2

    def x(self, value: float, low: float, high: float) -> int:
        """Returns the column of a value on an axis from ``low`` to ``high``; values outside are clipped."""
        fraction = min(max((value / 2 - low / 2) / (high / 2 - low / 2), 0.0), 1.0) if math.isfinite(value) else 0.0
        return round(self.bar_left + fraction * (self.bar_right - self.bar_left))
