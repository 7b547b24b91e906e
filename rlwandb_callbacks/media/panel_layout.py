"""Where things stand on the panel beside a frame, and which axes its bars have."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ContinuousActions
from rlwandb_callbacks.core.episode import Episode, Gaussian
from rlwandb_callbacks.media.drawing import TEXT_HEIGHT

SMALLEST_TEXT = 13
LEGIBLE_TEXT = 15
LABEL_SHARE = 0.37
LABEL_GAP = 4
LINES_AROUND_ROWS = 6.7  # title, numbers, axis and margins, in heights of the font


def axis_of_q_values(values: NDArray[np.float64]) -> tuple[float, float]:
    """Chooses one axis for all q-values of an episode.

    Zero is on it unless all values are far from zero and close to each other: then their differences, which decide the
    action, would vanish.

    Args:
        values: Any shape; non-finite entries are passed over.

    Returns:
        Lower and upper end, ``low < high``.

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
    """Chooses one axis per action dimension: its bounds, or where it has none what the episode covers.

    Returns:
        Lower and upper ends, each of shape ``[D]``.
    """
    seen = [episode.actions.reshape(episode.length, -1).astype(np.float64)]
    if isinstance(episode.scores, Gaussian):
        mean, reach = (part.reshape(episode.length, -1) for part in (episode.scores.mean, 2 * episode.scores.std))
        seen += [mean - reach, mean + reach]
    known = np.ma.masked_invalid(np.concatenate(seen))
    lows = np.where(np.isfinite(spec.low), spec.low, known.min(axis=0).filled(-1.0))
    highs = np.where(np.isfinite(spec.high), spec.high, known.max(axis=0).filled(1.0))
    return lows, np.where(highs > lows, highs, lows + 1.0)


def legible_height(least: int, rows: int) -> int:
    """How high a panel must be so that rows are as large as the text above them, up to 15 pixels.

    Args:
        least: In pixels; the answer is more by an even number.
        rows: Of the panel.

    Example:
        >>> legible_height(400, 2), legible_height(288, 18)
        (400, 418)
    """
    wanted = min(max(least // 20, SMALLEST_TEXT), LEGIBLE_TEXT)
    return next(height for height in itertools.count(least, 2) if Geometry(height, rows, 0.0).row_text_size >= wanted)


@dataclass(frozen=True)
class Geometry:
    """Where things stand on a panel of ``height`` pixels that has ``rows`` rows; all in pixels.

    Args:
        height: Of the panel.
        rows: How many stand below each other.
        value_share: RankResult of the width that the values take.
        label_share: RankResult of the width that the labels take.
    """

    height: int
    rows: int
    value_share: float
    label_share: float = LABEL_SHARE

    @cached_property
    def width(self) -> int:
        return max(280, round(0.8 * self.height))

    @cached_property
    def text_size(self) -> int:
        room_of_rows = int(self.height / (TEXT_HEIGHT * self.rows + LINES_AROUND_ROWS))
        return min(max(min(self.height // 20, room_of_rows), SMALLEST_TEXT), 40)

    @cached_property
    def line(self) -> int:
        return round(1.3 * self.text_size)

    @cached_property
    def margin(self) -> int:
        return self.text_size // 2

    @cached_property
    def top(self) -> int:
        return self.margin + 3 * self.line + self.margin

    @cached_property
    def pitch(self) -> int:
        free = self.height - self.top - self.line - self.margin
        return max(6, min(free // max(1, self.rows), round(2.2 * self.text_size)))

    @cached_property
    def row_text_size(self) -> int:
        return min(max(int(self.pitch / TEXT_HEIGHT), 6), self.text_size)

    @cached_property
    def label_left(self) -> int:
        return self.margin + self.row_text_size

    @cached_property
    def label_width(self) -> int:
        return self.bar_left - self.label_left - LABEL_GAP

    def with_room_for_labels(self, width: int) -> Geometry:
        """The same with wider labels where the widest needs it, as far as bars keep a quarter of the panel."""
        needed = (self.label_left + width + LABEL_GAP) / self.width
        return replace(self, label_share=min(max(self.label_share, needed), 0.75 - self.value_share))

    @cached_property
    def bar_left(self) -> int:
        return round(self.label_share * self.width)

    @cached_property
    def bar_right(self) -> int:
        return round((1 - self.value_share) * self.width)

    @cached_property
    def bar_half(self) -> int:
        return max(2, round(0.36 * min(self.pitch, 1.6 * self.text_size)))

    def row_center(self, row: int) -> int:
        return self.top + row * self.pitch + self.pitch // 2

    def x(self, value: float, low: float, high: float) -> int:
        """Where a value of an axis that goes from ``low`` to ``high`` lies; values beyond stay at the end."""
        share = min(max((value / 2 - low / 2) / (high / 2 - low / 2), 0.0), 1.0) if math.isfinite(value) else 0.0
        return round(self.bar_left + share * (self.bar_right - self.bar_left))
