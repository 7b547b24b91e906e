"""Points on a map, colored, with a scale or a legend that says what the colors mean."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten, wrap
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.maps.coloring import Coloring, color_map, colors_of, drawing_order

DPI = 100
GRAY = "#cdd2d8"
INK = "#222831"
FADED = "#5c6470"
ALARM = "#b45309"
MAX_WARNINGS = 3
LINE_HEIGHT = 0.22
LETTERS_PER_INCH = 12.5
BOLD_LETTERS_PER_INCH = 6.8
MAX_MARKER = 26.0
MIN_MARKER = 2.0
MAX_TITLE = 46


def marker_area(count: int) -> float:
    """Area of a point in square points: large where there are few."""
    return float(np.clip(40_000 / max(count, 1), MIN_MARKER, MAX_MARKER))


def draw_points(
    axes: Any,
    points: Floats,
    coloring: Coloring,
    *,
    title: str,
    axis: str,
    scale: float = 1.0,
    area: float | None = None,
) -> None:
    """Draws one panel: points, title, axis labels, and the scale or the legend.

    Args:
        axes: Matplotlib's.
        points: Shape ``[K, 2]``.
        coloring: Of K points.
        title: Above the panel; the coloring's note is added.
        axis: What the axes are called, such as ``t-SNE``.
        scale: Of the letters.
        area: Of a point in square points; by default large where there are few.
    """
    order = drawing_order(coloring)
    axes.scatter(
        *points[order].T,
        c=colors_of(coloring)[order],
        s=marker_area(len(points)) if area is None else area,
        linewidths=0,
        alpha=0.85,
        rasterized=True,
    )
    frame(axes, points, axis=axis, scale=scale)
    axes.set_title(title_with(title, coloring.note), fontsize=13 * scale, color=INK, loc="left", pad=8)
    if not coloring.note:
        explain(axes, coloring, scale=scale)


def title_with(title: str, note: str) -> str:
    """A title with a note behind it, or below it where both would be wider than the narrowest panel.

    Example:
        >>> title_with("State by reward", "always 1")
        'State by reward (always 1)'
    """
    text = f"{title} ({note})" if note else title
    return text if len(text) <= MAX_TITLE else f"{title}\n({note})"


def frame(axes: Any, points: Floats, *, axis: str, scale: float = 1.0) -> None:
    """Sets limits, labels and looks of a panel; places on a map have no unit, so there are no numbers on the axes."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.04 * max(float((high - low).max()), 1e-9)
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"{axis} 1", fontsize=10 * scale, color=FADED)
    axes.set_ylabel(f"{axis} 2", fontsize=10 * scale, color=FADED)
    for spine in axes.spines.values():
        spine.set_color("#c3c7ce")


def explain(axes: Any, coloring: Coloring, *, scale: float = 1.0) -> None:
    """Says what the colors of a panel mean: a color bar for numbers, a legend with shares for categories."""
    if coloring.categories:
        _legend(axes, coloring, scale)
        return
    shades = ScalarMappable(Normalize(coloring.low, coloring.high), color_map(coloring.color_map))
    bar = axes.figure.colorbar(shades, ax=axes, extend=coloring.extends, location="bottom", pad=0.01, aspect=40)
    bar.set_label(coloring.label, fontsize=11 * scale, color=INK)
    bar.ax.tick_params(labelsize=10 * scale, color=FADED, labelcolor=INK)
    if coloring.ticks:
        bar.set_ticks([at for at, _ in coloring.ticks], labels=[text for _, text in coloring.ticks])
    else:
        bar.locator = MaxNLocator(6)
        bar.formatter.set_powerlimits((-3, 5))
        bar.update_ticks()
    bar.outline.set_visible(False)


def _legend(axes: Any, coloring: Coloring, scale: float) -> None:
    total = max(1, len(coloring.values))
    handles = [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            markersize=7 * scale,
            markerfacecolor=category.color,
            markeredgewidth=0,
            label=f"{category.name} ({percent(category.count / total)})",
        )
        for category in coloring.categories
    ]
    axes.legend(
        handles=handles,
        title=coloring.label,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.045),
        ncols=2 if len(handles) == 4 else min(len(handles), 3 if len(handles) <= 9 else 4),
        frameon=False,
        fontsize=(10.5 if len(handles) <= 9 else 8) * scale,
        title_fontsize=11 * scale,
        labelspacing=0.3,
        columnspacing=1.0,
        handletextpad=0.1,
        borderpad=0.1,
    )


def percent(share: float) -> str:
    """A share in percent, with as many digits as it takes.

    Example:
        >>> percent(0.5), percent(0.004), percent(0.00001)
        ('50%', '0.4%', '<0.1%')
    """
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{100 * share:.0f}%" if share >= 0.0995 or share == 0 else f"{100 * share:.1f}%"


def new_figure(width: float, height: float, *, title: str, subtitle: str, warnings: Sequence[str] = ()) -> Figure:
    """An empty figure with a title and, below it, what is shown.

    Args:
        width: In hundreds of pixels.
        height: In hundreds of pixels.
        title: In bold; the end of what is too long is left out.
        subtitle: Size of the sample, method, notes; in as many lines as it takes.
        warnings: What looks wrong with the data; the first three are written below the subtitle.
    """
    room = int(width * LETTERS_PER_INCH)
    first, *others = wrap(subtitle, width=room, break_on_hyphens=False) or [""]
    lines = [(line, FADED) for line in others]
    lines += [(shorten(warning, width=room, placeholder=" …"), ALARM) for warning in warnings[:MAX_WARNINGS]]
    bold_room = int(width * BOLD_LETTERS_PER_INCH)
    title = title if len(title) <= bold_room else f"{title[: bold_room - 1]}…"
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    top = 0.72 + LINE_HEIGHT * len(lines)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.08, h_pad=0.06, rect=(0, 0, 1, 1 - top / height))  # type: ignore[call-arg]  # of constrained layout
    left = 0.1 / width
    figure.text(left, 1 - 0.12 / height, title, fontsize=15, weight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.46 / height, first, fontsize=10.5, color=FADED, va="top")
    for i, (line, color) in enumerate(lines):
        figure.text(left, 1 - (0.7 + LINE_HEIGHT * i) / height, line, fontsize=10.5, color=color, va="top")
    return figure


def rows_and_columns(count: int) -> tuple[int, int]:
    """How panels are put in a grid.

    Example:
        >>> [rows_and_columns(count) for count in (1, 2, 3, 4, 6)]
        [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]
    """
    columns = 2 if count == 4 else min(count, 3)
    return -(-count // columns), columns


def panel_grid(figure: Figure, count: int) -> list[Any]:
    """Adds ``count`` panels to a figure, in reading order."""
    rows, columns = rows_and_columns(count)
    panels: NDArray[Any] = np.asarray(figure.subplots(rows, columns, squeeze=False))
    for spare in panels.ravel()[count:]:
        spare.set_visible(False)
    return list(panels.ravel()[:count])
