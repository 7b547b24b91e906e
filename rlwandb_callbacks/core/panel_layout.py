"""Where things stand on the panel beside a frame, and which axes its bars have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.actions import ContinuousActions
from rlwandb_callbacks.core.episode import Episode, Gaussian


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


@dataclass(frozen=True)
class Geometry:
    """Where things stand on a panel of ``height`` pixels that has ``rows`` rows; all in pixels."""

    height: int
    rows: int
    value_share: float

    @cached_property
    def width(self) -> int:
        return max(280, round(0.8 * self.height))

    @cached_property
    def text_size(self) -> int:
        return min(max(self.height // 20, 13), 40)

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
        return min(max(self.pitch - 3, 6), self.text_size)

    @cached_property
    def bar_left(self) -> int:
        return round(0.37 * self.width)

    @cached_property
    def bar_right(self) -> int:
        return round((1 - self.value_share) * self.width)

    @cached_property
    def bar_half(self) -> int:
        return max(2, round(0.36 * min(self.pitch, 1.6 * self.text_size)))

    def row_centre(self, row: int) -> int:
        return self.top + row * self.pitch + self.pitch // 2

    def x(self, value: float, low: float, high: float) -> int:
        """Where a value of an axis that goes from ``low`` to ``high`` lies; values beyond stay at the end."""
        share = min(max((value / 2 - low / 2) / (high / 2 - low / 2), 0.0), 1.0) if math.isfinite(value) else 0.0
        return round(self.bar_left + share * (self.bar_right - self.bar_left))
