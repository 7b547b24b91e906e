"""Draws the output of the policy beside each frame of an episode.

The panel is to the right of the picture and never covers it. What does not change from frame to frame (labels, axis,
tracks) is drawn once per episode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from PIL import Image, ImageDraw

from rlwandb_callbacks.core.action_spec import ActionSpec, BinaryActions, ContinuousActions, OtherActions
from rlwandb_callbacks.core.episode import Episode, Gaussian, Probabilities, QValues, groups_of, row_of
from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.media.drawing import (
    BACKGROUND,
    BAR,
    CHOSEN,
    GRID,
    MIN_FRAME_HEIGHT,
    MUTED,
    TEXT,
    TEXT_HEIGHT,
    TRACK,
    Color,
    center_vertically,
    fit_text,
    format_fixed,
    format_number,
    paste,
    text_block,
    text_width,
)
from rlwandb_callbacks.media.panel_content import action_lines, bars_of, label_groups, row_count
from rlwandb_callbacks.media.panel_layout import LABEL_GAP, Geometry, axis_of_actions, axis_of_q_values, legible_height


@dataclass(frozen=True)
class Panel:
    """Panel beside the frames of one episode; ``height`` in pixels."""

    episode: Episode
    actions: ActionSpec
    height: int

    @classmethod
    def for_frames(cls, frame: Pixels, episode: Episode, actions: ActionSpec) -> Panel:
        """Creates a panel as high as the (enlarged) frames, or higher if its text would be too small to read."""
        panel = cls(episode, actions, max(frame.shape[0], MIN_FRAME_HEIGHT))
        return replace(panel, height=legible_height(panel.height, panel._row_count))

    def beside(self, frame: Pixels, step: int) -> Pixels:
        """Puts the panel of a step beside its frame, which is centered vertically if the panel is higher."""
        return np.concatenate([center_vertically(frame, self.height), self.draw(step)], axis=1)

    def draw(self, step: int) -> Pixels:
        """Draws the panel for the state before action ``step``; ``step == episode.length`` is the last state."""
        at = self._at
        canvas: Pixels = self._background.copy()
        self._draw_numbers(canvas, step)
        if step == self.episode.length:
            self._text(canvas, at.margin, at.row_center(0), self.episode.ending, CHOSEN)
        elif isinstance(self.actions, ContinuousActions):
            self._draw_intervals(canvas, step)
        elif isinstance(self.actions, OtherActions):
            for row, line in enumerate(action_lines(self.episode.actions[step])):
                self._text(canvas, at.margin, at.row_center(row), line, CHOSEN, at.row_text_size)
        else:
            self._draw_bars(canvas, step)
        return canvas

    @cached_property
    def _at(self) -> Geometry:
        at = Geometry(self.height, self._row_count, 0.35 if isinstance(self.episode.scores, Gaussian) else 0.25)
        widths = [text_width(label, at.row_text_size) for group in self._labels for label in group]
        return at.with_room_for_labels(max(widths, default=0))

    @cached_property
    def _labels(self) -> list[list[str]]:
        return label_groups(self.actions, self.episode.scores)

    @cached_property
    def _row_count(self) -> int:
        if isinstance(self.actions, OtherActions):
            return max((len(action_lines(action)) for action in self.episode.actions[:1]), default=1)
        return row_count(self._labels)

    @cached_property
    def _title(self) -> str:
        if isinstance(self.episode.scores, Gaussian):
            return "policy: mean ± std"
        match groups_of(self.episode.scores):
            case (QValues(), *_):
                return "q-values"
            case (Probabilities(source=source), *_):
                is_binary = isinstance(self.actions, BinaryActions)
                return source or ("probability of on" if is_binary else "action probabilities")
            case _:
                return "actions"

    @cached_property
    def _score_axis(self) -> tuple[float, float]:
        values = [group.values.ravel() for group in groups_of(self.episode.scores) if isinstance(group, QValues)]
        return axis_of_q_values(np.concatenate(values)) if values else (0.0, 1.0)

    @cached_property
    def _action_axes(self) -> list[tuple[float, float]]:
        if not isinstance(self.actions, ContinuousActions):
            return []
        lows, highs = axis_of_actions(self.actions, self.episode)
        return [(float(low), float(high)) for low, high in zip(lows.ravel(), highs.ravel(), strict=True)]

    @cached_property
    def _returns(self) -> list[float]:
        return [0.0, *np.cumsum(self.episode.rewards).tolist()]

    @cached_property
    def _background(self) -> Pixels:
        at = self._at
        canvas = np.full((at.height, at.width, 3), BACKGROUND, dtype=np.uint8)
        self._text(canvas, at.margin, at.margin + at.line // 2, self._title, TEXT)
        if isinstance(self.actions, OtherActions):
            return canvas
        for row in range(self._row_count):
            y = at.row_center(row)
            canvas[y - at.bar_half : y + at.bar_half + 1, at.bar_left : at.bar_right] = TRACK
        if isinstance(self.actions, ContinuousActions):
            self._draw_action_axes(canvas)
        elif self.episode.scores is not None:
            self._draw_axis_below(canvas, *self._score_axis)
        self._draw_count_of_left_out(canvas)
        return canvas

    def _draw_count_of_left_out(self, canvas: Pixels) -> None:
        """Says below the rows how many of them do not fit."""
        at, count = self._at, sum(map(len, self._labels)) - self._row_count
        if count > 0:
            text, size = fit_text(f"{count} more not shown", at.bar_left - at.margin - LABEL_GAP, self._axis_text_size)
            self._text(canvas, at.margin, self._axis_center, text, MUTED, size)

    @property
    def _axis_text_size(self) -> int:
        return max(11, round(0.7 * self._at.text_size))

    @property
    def _axis_center(self) -> int:
        return self._at.row_center(self._row_count - 1) + self._at.pitch // 2 + self._at.line // 2

    def _draw_axis_below(self, canvas: Pixels, low: float, high: float) -> None:
        at, y, size = self._at, self._axis_center, self._axis_text_size
        self._text(canvas, at.bar_left, y, format_number(low), MUTED, size, "center" if low == 0 else "left")
        self._text(canvas, at.bar_right, y, format_number(high), MUTED, size, "center" if high == 0 else "right")

    def _draw_action_axes(self, canvas: Pixels) -> None:
        at, axes = self._at, self._action_axes[: self._row_count]
        size = max(10, round(0.6 * at.text_size))
        below = at.bar_half + 1 + round(TEXT_HEIGHT * size)
        if below + at.bar_half <= at.pitch:
            for row, (low, high) in enumerate(axes):
                y = at.row_center(row) + below - round(TEXT_HEIGHT * size) // 2
                self._text(canvas, at.bar_left, y, format_number(low), MUTED, size)
                self._text(canvas, at.bar_right, y, format_number(high), MUTED, size, "right")
        elif len(set(axes)) == 1:
            self._draw_axis_below(canvas, *axes[0])

    def _draw_numbers(self, canvas: Pixels, step: int) -> None:
        at = self._at
        right, first, second = round(0.46 * at.width), at.margin + 3 * at.line // 2, at.margin + 5 * at.line // 2
        self._text(canvas, at.margin, first, f"step {step}")
        reward = format_reward(float(self.episode.rewards[step - 1])) if step else "-"
        self._text(canvas, right, first, f"reward {reward}")
        self._text(canvas, at.margin, second, f"return {format_number(self._returns[step])}")
        if predicted := self._prediction(step) if step < self.episode.length else "":
            self._text(canvas, right, second, predicted)

    def _prediction(self, step: int) -> str:
        """Returns the prediction of a critic as text; q-values of all actions are drawn as bars instead."""
        if self.episode.values is not None:
            return f"V(s) {format_number(float(self.episode.values[step]))}"
        if self.episode.chosen_q is not None and isinstance(self.actions, ContinuousActions):
            return f"Q(s,a) {format_number(float(self.episode.chosen_q[step]))}"
        return ""

    def _draw_bars(self, canvas: Pixels, step: int) -> None:
        at = self._at
        scores = None if self.episode.scores is None else row_of(self.episode.scores, step)
        bars = bars_of(self.actions, scores, self.episode.actions[step])
        for row, bar in enumerate(bars):
            self._draw_label(canvas, row, bar.label, is_chosen=bar.is_chosen)
            if bar.value is not None:
                self._draw_bar(canvas, row, bar.value, CHOSEN if bar.is_chosen else BAR)
            elif bar.is_chosen:
                self._fill(canvas, row, at.bar_left, at.bar_right, CHOSEN)
        for row, bar in enumerate(bars):  # last, as text in crowded rows overlaps them
            if bar.begins_group:
                y = at.row_center(row) - at.pitch // 2
                canvas[y, at.margin : at.width - at.margin] = GRID

    def _draw_bar(self, canvas: Pixels, row: int, value: float, color: Color) -> None:
        at, (low, high) = self._at, self._score_axis
        if np.isfinite(value):
            start = 0.0 if low < 0 < high else low  # a longer bar is a better action
            left, right = sorted((at.x(start, low, high), at.x(value, low, high)))
            self._fill(canvas, row, left, right, color)
        if low < 0 < high:
            zero, y = at.x(0.0, low, high), at.row_center(row)
            canvas[y - at.pitch // 2 : y + at.pitch // 2, zero - 1 : zero + 1] = GRID
        self._draw_value(canvas, row, format_number(value), color if color == CHOSEN else TEXT)

    def _draw_intervals(self, canvas: Pixels, step: int) -> None:
        at = self._at
        action = self.episode.actions[step].reshape(-1).astype(np.float64).tolist()
        scores = None if self.episode.scores is None else row_of(self.episode.scores, step)
        for row, (low, high) in enumerate(self._action_axes[: self._row_count]):
            self._draw_label(canvas, row, self._labels[row][0], is_chosen=False)
            text = format_number(action[row])
            if isinstance(scores, Gaussian):
                mean, std = float(scores.mean.reshape(-1)[row]), float(scores.std.reshape(-1)[row])
            if isinstance(scores, Gaussian) and np.isfinite(mean + std):  # a Cauchy distribution has neither
                left, center, right = (at.x(value, low, high) for value in (mean - std, mean, mean + std))
                self._fill(canvas, row, left, right, BAR)
                self._fill(canvas, row, center - 1, center + 1, TEXT)
                text = f"{format_fixed(mean, 2)} ±{format_fixed(std, 2)}"
            x = at.x(action[row], low, high)
            self._fill(canvas, row, x - 2, x + 2, CHOSEN, overhang=max(0, min(3, at.pitch // 2 - at.bar_half - 1)))
            self._draw_value(canvas, row, text, TEXT)

    def _draw_value(self, canvas: Pixels, row: int, text: str, color: Color) -> None:
        at = self._at
        free = at.width - at.margin - at.bar_right - 4
        size = min(at.row_text_size, int(1.9 * free / max(1, len(text))))
        self._text(canvas, at.width - at.margin, at.row_center(row), text, color, size, "right")

    def _draw_label(self, canvas: Pixels, row: int, name: str, *, is_chosen: bool) -> None:
        at, y = self._at, self._at.row_center(row)
        if is_chosen:
            paste(canvas, _marker(at.row_text_size), at.margin - 2, y)
        text, size = fit_text(name, at.label_width, at.row_text_size)
        self._text(canvas, at.label_left, y, text, CHOSEN if is_chosen else TEXT, size)

    def _fill(self, canvas: Pixels, row: int, left: int, right: int, color: Color, overhang: int = 0) -> None:
        y, half = self._at.row_center(row), self._at.bar_half + overhang
        canvas[y - half : y + half + 1, left:right] = color

    def _text(
        self,
        canvas: Pixels,
        x: int,
        y: int,
        text: str,
        color: Color = TEXT,
        size: int | None = None,
        align: str = "left",
    ) -> None:
        paste(canvas, text_block(text, size or self._at.text_size, color), x, y, align)


def format_reward(reward: float) -> str:
    """Formats a reward with its sign in at most nine characters, so that it fits on the panel.

    Example:
        >>> [format_reward(reward) for reward in (1.5, -0.00012006, 0.0, -1234567.0)]
        ['+1.5', '-0.00012', '+0', '-1.2e+06']
    """
    is_plain = reward == 0 or 0.001 <= abs(reward) < 10_000
    return f"{reward:+.4g}" if is_plain else f"{reward:+.2g}"


@cache
def _marker(size_px: int) -> Pixels:
    """Returns a triangle that points at the chosen action."""
    image = Image.new("RGB", (size_px, size_px), BACKGROUND)
    corners = [(2, 1), (2, size_px - 2), (size_px - 3, size_px // 2)]
    ImageDraw.Draw(image).polygon(corners, fill=CHOSEN)
    return np.asarray(image)
