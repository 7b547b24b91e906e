"""Colors of points: by a number on a scale, or by one of a few categories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex, to_rgba
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec, DiscreteActions
from rlwandb_callbacks.core.episode import Floats

MAX_LEVELS = 8
MAX_CATEGORIES = 20
MAX_DIMENSIONS = 6
MAX_NAME_LENGTH = 18
RARE_FRACTION = 0.05
SCALE_QUANTILES = (0.01, 0.99)
MISSING_COLOR = "#c8c8c8"
CUSTOM_COLOR_MAPS = {
    # Like "coolwarm", but with a middle color that is visible on white.
    "diverging": LinearSegmentedColormap.from_list(
        "diverging", ("#1f5fbf", "#6fa3dc", "#a3a3a6", "#e8845f", "#b3122d")
    ),
    # From calm to alarming.
    "distance": LinearSegmentedColormap.from_list("distance", ("#1d8a99", "#8fb339", "#f2a541", "#d1495b", "#5a0f2e")),
}
# Okabe and Ito's palette, which color-blind readers can tell apart; yellow comes last, as it is faint on white.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000", "#f0e442")
# Matplotlib's, without the two grays, which stand for missing values and for the rest of many actions.
LARGE_PALETTE = tuple({14: "#000000", 15: "#6b0f4f"}.get(i) or to_hex(colormaps["tab20"](i)) for i in range(20))


def color_map(name: str) -> Colormap:
    """Returns ``diverging``, ``distance`` or one of matplotlib's color maps."""
    return CUSTOM_COLOR_MAPS.get(name) or colormaps[name]


@dataclass(frozen=True)
class Category:
    """One of a few values: its name in the legend, color as ``#rrggbb``, and number of points."""

    name: str
    color: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Coloring:
    """Colors of K points.

    Args:
        label: Name of the quantity.
        values: Shape ``[K]``: the numbers, or the index of each point's category; NaN if it has none.
        categories: The categories; empty for numbers.
        low: Value at the lower end of the scale; values below have its color.
        high: Value at the upper end, > ``low`` for numbers; values above have its color.
        color_map: Name of the color map of numbers; see :func:`color_map`.
        ticks: Ticks of the scale with their labels; by default round numbers.
    """

    label: str
    values: Floats
    categories: tuple[Category, ...] = ()
    low: float = 0.0
    high: float = 1.0
    color_map: str = "viridis"
    ticks: tuple[tuple[float, str], ...] = ()

    @property
    def note(self) -> str:
        """Addition to the title, instead of a legend, if all values are equal or none is finite."""
        if len(self.categories) == 1:
            return f"always {self.categories[0].name}"
        return "" if np.isfinite(self.values).any() else "no finite value"

    @property
    def extends(self) -> str:
        """The ends of the scale beyond which there are values: ``neither``, ``min``, ``max`` or ``both``."""
        finite = self.values[np.isfinite(self.values)]
        below, above = bool((finite < self.low).any()), bool((finite > self.high).any())
        return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")


def by_number(
    label: str,
    values: NDArray[np.generic],
    *,
    colors: str = "viridis",
    is_signed: bool = False,
    limits: tuple[float, float] | None = None,
) -> Coloring:
    """Colors K points by a number: on a scale, or by levels if there are only a few.

    Args:
        label: Name of the quantity.
        values: Shape ``[K]``; values that are not finite are drawn gray.
        colors: Name of the color map.
        is_signed: Use diverging colors around zero if values lie on both sides of it.
        limits: Limits of the scale; by default :func:`robust_limits`.

    Example:
        >>> by_number("reward", np.array([1.0, 1.0, 1.0])).note
        'always 1'
        >>> [(level.name, level.count) for level in by_number("reward", np.array([0.0, 1.0, 0.0])).categories]
        [('0', 2), ('1', 1)]
    """
    numbers = np.asarray(values, dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    levels, counts = np.unique(finite, return_counts=True)
    if limits is None and len(levels) <= MAX_LEVELS and (len(levels) <= 2 or counts.min() > 1):
        return _by_level(label, numbers, levels, counts, color_map(colors))
    low, high = limits or robust_limits(finite)
    if is_signed and low < 0 < high:
        colors, high = "diverging", max(high, -low)
        low = -high
    return Coloring(label=label, values=numbers, low=low, high=high, color_map=colors)


def robust_limits(finite: Floats) -> tuple[float, float]:
    """Returns the range of all values, or the 1st and 99th percentile if the full range is over 1.5 times as wide.

    Example:
        >>> robust_limits(np.arange(101.0)), robust_limits(np.array([*np.arange(1000.0), 1e9]))
        ((0.0, 100.0), (10.0, 990.0))
    """
    low, high = np.quantile(finite, SCALE_QUANTILES)
    smallest, largest = float(finite.min()), float(finite.max())
    if high > low and largest - smallest > 1.5 * (high - low):
        return float(low), float(high)
    return smallest, largest


def _by_level(label: str, numbers: Floats, levels: Floats, counts: NDArray[np.int64], colors: Colormap) -> Coloring:
    indices = np.where(np.isfinite(numbers), np.searchsorted(levels, numbers), np.nan)
    positions = [0.35] if len(levels) == 1 else np.linspace(0.0, 0.9, len(levels))
    categories = tuple(
        Category(f"{level:.4g}", to_hex(colors(position)), int(count))
        for level, position, count in zip(levels, positions, counts, strict=True)
    )
    return Coloring(label=label, values=indices, categories=categories)


def by_action(actions: NDArray[np.generic], spec: ActionSpec) -> list[Coloring]:
    """Colors K points by the action: one coloring for discrete actions, one per dimension (the first six) for others.

    Args:
        actions: Shape ``[K]``, integers, or ``[K, D]``.
        spec: Spec of these actions. Of more than twenty discrete actions, the nineteen most frequent have own colors.
    """
    columns = actions.reshape(len(actions), -1).T
    if len(columns) > 1:
        return [by_number(f"action[{i}]", column, is_signed=True) for i, column in enumerate(columns[:MAX_DIMENSIONS])]
    if isinstance(spec, DiscreteActions):
        return [_by_discrete(columns[0].astype(np.int64), spec)]
    return [by_number("action", columns[0], is_signed=True)]


def _by_discrete(taken: NDArray[np.int64], spec: DiscreteActions) -> Coloring:
    actions, counts = np.unique(taken, return_counts=True)
    shown = np.arange(len(actions))
    if len(actions) > MAX_CATEGORIES:
        shown = np.sort(np.argsort(-counts, kind="stable")[: MAX_CATEGORIES - 1])
    colors = PALETTE if len(shown) <= len(PALETTE) else LARGE_PALETTE
    categories = [
        Category(shortened(action_name(spec, action), MAX_NAME_LENGTH), color, count)
        for action, count, color in zip(actions[shown].tolist(), counts[shown].tolist(), colors, strict=False)
    ]
    indices = np.searchsorted(actions[shown], taken).astype(np.float64)
    is_rest = ~np.isin(taken, actions[shown])
    if is_rest.any():
        categories.append(Category(f"{len(actions) - len(shown)} others", MISSING_COLOR, int(is_rest.sum())))
        indices[is_rest] = len(shown)
    return Coloring(label="action", values=indices, categories=tuple(categories))


def shortened(text: str, length: int) -> str:
    """Cuts a text that is longer than ``length`` characters, and marks that with an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def action_name(spec: DiscreteActions, action: int) -> str:
    """Returns the name of a discrete action; its number if it is not in the spec."""
    index = action - spec.first
    return spec.names[index] if 0 <= index < len(spec.names) else str(action)


def rgba_colors(coloring: Coloring) -> Floats:
    """Returns the color of each point, ``[K, 4]`` RGBA in [0, 1]; gray if it has no value."""
    values, known = coloring.values, np.isfinite(coloring.values)
    colors = np.tile(to_rgba(MISSING_COLOR), (len(values), 1))
    if coloring.categories:
        table = np.stack([to_rgba(category.color) for category in coloring.categories])
        colors[known] = table[values[known].astype(np.int64)]
    elif known.any():
        fractions = (values[known] - coloring.low) / (coloring.high - coloring.low)
        colors[known] = color_map(coloring.color_map)(np.clip(fractions, 0.0, 1.0))
    return colors


def drawing_order(coloring: Coloring) -> NDArray[np.int64]:
    """Returns the order of drawing, ``[K]``: shuffled, so that no category covers another, with rare values on top."""
    shuffled = np.random.default_rng(0).permutation(len(coloring.values))
    known = np.isfinite(coloring.values)
    on_top = np.zeros(len(shuffled), dtype=bool)
    if coloring.categories:
        counts = np.array([category.count for category in coloring.categories])
        on_top[known] = (counts < RARE_FRACTION * len(shuffled))[coloring.values[known].astype(np.int64)]
    elif known.any():
        middle = np.median(coloring.values[known])
        reach = max(coloring.high - middle, middle - coloring.low)
        on_top[known] = np.abs(coloring.values[known] - middle) > 0.9 * reach
    return shuffled[np.argsort(on_top[shuffled], kind="stable")]
