"""Scatter plots of colored points, each with a color bar or a legend."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.maps.coloring import Coloring, color_map, drawing_order, rgba_colors, shortened

DPI = 100
DATA_GRAY = "#cdd2d8"
SPINE_GRAY = "#c3c7ce"
TEXT = "#222831"
MUTED_TEXT = "#5c6470"
WARNING_TEXT = "#b45309"
MAX_WARNING_LINES = 6
LINE_HEIGHT = 0.22
CHARACTERS_PER_INCH = 11.0
BOLD_CHARACTERS_PER_INCH = 6.8
MAX_MARKER_AREA = 26.0
MIN_MARKER_AREA = 2.0
MIN_FOREGROUND_AREA = 14.0
MAX_TITLE = 46


def marker_area(count: int) -> float:
    """Returns the area of a marker in square points: large for few points."""
    return float(np.clip(40_000 / count, MIN_MARKER_AREA, MAX_MARKER_AREA))


def draw_points(
    axes: Any, points: Floats, coloring: Coloring, *, title: str, axis: str, background: Floats | None = None
) -> None:
    """Draws one panel: points, title, axis labels, and the color bar or legend.

    Args:
        axes: Matplotlib's axes.
        points: Shape ``[K, 2]``.
        coloring: Colors of the K points.
        title: Title of the panel; the coloring's note is added.
        axis: Name of the axes, such as ``t-SNE``.
        background: Shape ``[N, 2]``: points that are drawn in gray below the others, which are larger then.
    """
    order = drawing_order(coloring)
    colors, area, shown = rgba_colors(coloring)[order], marker_area(len(points)), points
    if background is not None:
        area, shown = max(MIN_FOREGROUND_AREA, area), np.concatenate([background, points])
        gray_area = 0.6 * marker_area(len(background))
        axes.scatter(*background.T, c=DATA_GRAY, s=gray_area, linewidths=0, rasterized=True)
    axes.scatter(*points[order].T, c=colors, s=area, linewidths=0, alpha=0.85, rasterized=True)
    _style_axes(axes, shown, axis=axis)
    axes.set_title(title_with_note(title, coloring.note), fontsize=13, color=TEXT, loc="left", pad=8)
    if coloring.note:
        return
    if coloring.categories:
        _add_legend(axes, coloring)
    else:
        _add_color_bar(axes, coloring)


def title_with_note(title: str, note: str) -> str:
    """Returns a title with a note after it, or below it if both do not fit the narrowest panel.

    Example:
        >>> title_with_note("State by reward", "always 1")
        'State by reward (always 1)'
    """
    text = f"{title} ({note})" if note else title
    return text if len(text) <= MAX_TITLE else f"{title}\n({note})"


def _style_axes(axes: Any, points: Floats, *, axis: str) -> None:
    """Sets limits, labels and colors of a panel; there are no ticks, as positions on a map have no unit."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.04 * max(float((high - low).max()), 1e-9)
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), xticks=[], yticks=[])
    axes.set_xlabel(f"{axis} 1", fontsize=10, color=MUTED_TEXT)
    axes.set_ylabel(f"{axis} 2", fontsize=10, color=MUTED_TEXT)
    axes.spines[:].set_color(SPINE_GRAY)


def _add_color_bar(axes: Any, coloring: Coloring) -> None:
    colors = ScalarMappable(Normalize(coloring.low, coloring.high), color_map(coloring.color_map))
    bar = axes.figure.colorbar(colors, ax=axes, extend=coloring.extends, location="bottom", pad=0.01, aspect=40)
    bar.set_label(coloring.label, fontsize=11, color=TEXT)
    bar.ax.tick_params(labelsize=10, color=MUTED_TEXT, labelcolor=TEXT)
    if coloring.ticks:
        bar.set_ticks([value for value, _ in coloring.ticks], labels=[label for _, label in coloring.ticks])
    else:
        bar.locator = MaxNLocator(6)
        bar.formatter.set_powerlimits((-3, 5))
        bar.update_ticks()
    bar.outline.set_visible(False)


def _add_legend(axes: Any, coloring: Coloring) -> None:
    disc: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 7, "markeredgewidth": 0}
    fractions = [percent(category.count / len(coloring.values)) for category in coloring.categories]
    handles = [
        Line2D([], [], markerfacecolor=category.color, label=f"{category.name} ({fraction})", **disc)
        for category, fraction in zip(coloring.categories, fractions, strict=True)
    ]
    spacing = {"labelspacing": 0.3, "columnspacing": 1.0, "handletextpad": 0.1, "borderpad": 0.1}
    axes.legend(
        handles=handles,
        title=coloring.label,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.045),
        ncols=2 if len(handles) == 4 else min(len(handles), 3 if len(handles) <= 9 else 4),
        frameon=False,
        fontsize=10.5 if len(handles) <= 9 else 8,
        title_fontsize=11,
        **spacing,
    )


def percent(fraction: float) -> str:
    """Returns a fraction in percent, with one decimal below 10 %.

    Example:
        >>> percent(0.5), percent(0.004), percent(0.00001)
        ('50%', '0.4%', '<0.1%')
    """
    if 0 < fraction < 0.001:
        return "<0.1%"
    return f"{100 * fraction:.0f}%" if fraction >= 0.0995 or fraction == 0 else f"{100 * fraction:.1f}%"


def new_figure(width: float, height: float, *, title: str, subtitle: str, warnings: Sequence[str] = ()) -> Figure:
    """Returns an empty figure with a title and a subtitle.

    Args:
        width: In inches of 100 pixels.
        height: In inches of 100 pixels.
        title: Bold; cut if it is too long.
        subtitle: Wrapped to as many lines as needed.
        warnings: Written below the subtitle, as many as fit into six lines; the last line counts the others.
    """
    columns = int(width * CHARACTERS_PER_INCH)
    first, *others = wrap(subtitle, width=columns, break_on_hyphens=False)
    lines = [(line, MUTED_TEXT) for line in others]
    lines += [(line, WARNING_TEXT) for line in warning_lines(warnings, columns)]
    title = shortened(title, int(width * BOLD_CHARACTERS_PER_INCH))
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    top = 0.72 + LINE_HEIGHT * len(lines)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06, rect=(0, 0, 1, 1 - top / height))
    left = 0.1 / width
    figure.text(left, 1 - 0.12 / height, title, fontsize=15, weight="bold", color=TEXT, va="top")
    figure.text(left, 1 - 0.46 / height, first, fontsize=10.5, color=MUTED_TEXT, va="top")
    for i, (line, color) in enumerate(lines):
        figure.text(left, 1 - (0.7 + LINE_HEIGHT * i) / height, line, fontsize=10.5, color=color, va="top")
    return figure


def warning_lines(warnings: Sequence[str], columns: int) -> list[str]:
    """Wraps warnings to at most six lines of a number of columns, without parts of any.

    Example:
        >>> warning_lines(["The first ones fit."] * 6 + ["The last one does not."], 20)[-2:]
        ['The first ones fit.', '2 more warnings']
    """
    wrapped = [wrap(text, width=columns, break_on_hyphens=False) for text in warnings]
    shown = wrapped
    if sum(map(len, wrapped)) > MAX_WARNING_LINES:
        shown = wrapped[: sum(end < MAX_WARNING_LINES for end in itertools.accumulate(map(len, wrapped)))]
    left_out = len(wrapped) - len(shown)
    return [*itertools.chain(*shown), *([f"{left_out} more warning{'s' * (left_out > 1)}"] if left_out else [])]


def panel_grid(figure: Figure, count: int) -> list[Any]:
    """Adds ``count`` panels to a figure, in reading order: up to three columns, and two for four panels."""
    columns = 2 if count == 4 else min(count, 3)
    panels: NDArray[Any] = np.asarray(figure.subplots(-(-count // columns), columns, squeeze=False)).ravel()
    for spare in panels[count:]:
        spare.set_visible(False)
    return list(panels[:count])
