"""What a point's color means: a number on a scale, or one of a few categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec, DiscreteActions
from rlwandb_callbacks.core.episode import Floats

FEW_LEVELS = 8
MAX_CATEGORIES = 20
MAX_DIMENSIONS = 6
TAILS = (0.01, 0.99)
MISSING = "#c8c8c8"
# Okabe and Ito's palette, told apart by color-blind readers too; yellow is left to the end, as it is faint on white.
# As "coolwarm", but with a middle that is seen as a point on white.
OURS = {
    "diverging": LinearSegmentedColormap.from_list(
        "diverging", ("#1f5fbf", "#6fa3dc", "#a3a3a6", "#e8845f", "#b3122d")
    ),
    # Calm where all is well, alarming where it is not.
    "distance": LinearSegmentedColormap.from_list("distance", ("#1d8a99", "#8fb339", "#f2a541", "#d1495b", "#5a0f2e")),
}
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000", "#f0e442")
# The gray ones are taken by what has no value and by the others of many actions.
_INSTEAD_OF_GRAY = {14: "#000000", 15: "#6b0f4f"}
TWENTY = tuple(_INSTEAD_OF_GRAY.get(i) or to_hex(colormaps["tab20"](i)) for i in range(20))


def color_map(name: str) -> Colormap:
    """Ours, or matplotlib's."""
    return OURS.get(name) or colormaps[name]


@dataclass(frozen=True)
class Category:
    """One of a few values.

    Args:
        name: In the legend.
        color: As ``#rrggbb``.
        count: How many points have it.
    """

    name: str
    color: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Coloring:
    """How K points are colored.

    Args:
        label: Of the quantity.
        values: Shape ``[K]``: the numbers, or the index of each point's category; NaN where there is none.
        categories: Empty for numbers.
        low: Value of the darkest color; values below have it too.
        high: Value of the lightest color, > ``low``, for numbers.
        color_map: ``diverging``, ``distance``, or the name of one of matplotlib's color maps, for numbers.
        note: What the title adds, such as that all values are equal.
        ticks: Marks of the scale and their texts; by default round numbers.
    """

    label: str
    values: Floats
    categories: tuple[Category, ...] = ()
    low: float = 0.0
    high: float = 1.0
    color_map: str = "viridis"
    note: str = ""
    ticks: tuple[tuple[float, str], ...] = ()

    @property
    def extends(self) -> str:
        """Which ends of the scale values lie beyond: ``neither``, ``min``, ``max`` or ``both``."""
        finite = self.values[np.isfinite(self.values)]
        below, above = bool((finite < self.low).any()), bool((finite > self.high).any())
        return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")


def by_number(
    label: str,
    values: NDArray[np.generic],
    *,
    shades: str = "viridis",
    is_signed: bool = False,
    limits: tuple[float, float] | None = None,
) -> Coloring:
    """Colors by a number: on a scale, or by a few levels where there are few.

    Args:
        label: Of the quantity.
        values: Shape ``[K]``; what is not finite is drawn gray.
        shades: Color map for the scale and the levels.
        is_signed: Use diverging colors, centered on zero, where values lie on both sides of it.
        limits: Of the scale; by default all values, or the 1st to the 99th percentile where outliers would stretch it.

    Example:
        >>> by_number("reward", np.array([1.0, 1.0, 1.0])).note
        'always 1'
        >>> [(level.name, level.count) for level in by_number("reward", np.array([0.0, 1.0, 0.0])).categories]
        [('0', 2), ('1', 1)]
    """
    numbers = np.asarray(values, dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    levels, counts = np.unique(finite, return_counts=True)
    if limits is None and len(levels) <= FEW_LEVELS and (len(levels) <= 2 or counts.min() > 1):
        return _by_level(label, numbers, levels, counts, shades)
    low, high = limits or robust_limits(finite)
    if is_signed and low < 0 < high:
        shades, high = "diverging", max(high, -low)
        low = -high
    return Coloring(label=label, values=numbers, low=low, high=high, color_map=shades)


def robust_limits(finite: Floats) -> tuple[float, float]:
    """All values, or the 1st to the 99th percentile where the rest would make the scale half as long again.

    Example:
        >>> robust_limits(np.arange(101.0)), robust_limits(np.array([*np.arange(1000.0), 1e9]))
        ((0.0, 100.0), (10.0, 990.0))
    """
    low, high = np.quantile(finite, TAILS)
    smallest, largest = float(finite.min()), float(finite.max())
    if high > low and largest - smallest > 1.5 * (high - low):
        return float(low), float(high)
    return smallest, largest


def _by_level(label: str, numbers: Floats, levels: Floats, counts: NDArray[np.int64], shades: str) -> Coloring:
    places = np.full(len(numbers), np.nan)
    finite = np.isfinite(numbers)
    places[finite] = np.searchsorted(levels, numbers[finite])
    places_on_scale = np.array([0.35]) if len(levels) == 1 else np.linspace(0.0, 0.9, len(levels))
    categories = tuple(
        Category(f"{level:.4g}", to_hex(color_map(shades)(place)), int(count))
        for level, place, count in zip(levels, places_on_scale, counts, strict=True)
    )
    note = {0: "no finite value", 1: f"always {categories[0].name}" if categories else ""}.get(len(levels), "")
    return Coloring(label=label, values=places, categories=categories, note=note)


def by_action(actions: NDArray[np.generic], spec: ActionSpec) -> list[Coloring]:
    """Colors by the action: one coloring for discrete actions, one per dimension (the first six) for others.

    Args:
        actions: Shape ``[K]``, integers, or ``[K, D]``.
        spec: Of these actions. Of more than twenty discrete ones, the nineteen most frequent keep colors of their own.
    """
    columns = np.asarray(actions).reshape(len(actions), -1)
    if isinstance(spec, DiscreteActions) and columns.shape[1] == 1:
        return [_by_discrete(columns[:, 0].astype(np.int64), spec)]
    names = ["action"] if columns.shape[1] == 1 else [f"action[{i}]" for i in range(columns.shape[1])]
    return [
        by_number(name, column, is_signed=True)
        for name, column in zip(names[:MAX_DIMENSIONS], columns.T[:MAX_DIMENSIONS], strict=True)
    ]


def _by_discrete(taken: NDArray[np.int64], spec: DiscreteActions) -> Coloring:
    found, counts = np.unique(taken, return_counts=True)
    shown = found
    if len(found) > MAX_CATEGORIES:
        shown = np.sort(found[np.argsort(-counts, kind="stable")[: MAX_CATEGORIES - 1]])
    count_of = dict(zip(found.tolist(), counts.tolist(), strict=True))
    colors = category_colors(len(shown))
    categories = [
        Category(_name(spec, action), color, count_of[action])
        for action, color in zip(shown.tolist(), colors, strict=True)
    ]
    places = np.searchsorted(shown, taken).astype(np.float64)
    others = ~np.isin(taken, shown)
    if others.any():
        categories.append(Category(f"{len(found) - len(shown)} others", MISSING, int(others.sum())))
        places[others] = len(shown)
    note = f"always {categories[0].name}" if len(categories) == 1 else ""
    return Coloring(label="action", values=places, categories=tuple(categories), note=note)


def _name(spec: DiscreteActions, action: int) -> str:
    index = action - spec.first
    name = spec.names[index] if 0 <= index < len(spec.names) else str(action)
    return name if len(name) <= 18 else f"{name[:17]}…"


def category_colors(count: int) -> Sequence[str]:
    """Colors that are told apart, as ``#rrggbb``: eight that color-blind readers know, else twenty."""
    return PALETTE[:count] if count <= len(PALETTE) else [TWENTY[i % 20] for i in range(count)]


def colors_of(coloring: Coloring) -> Floats:
    """The color of each point, ``[K, 4]`` RGBA in [0, 1]; gray where there is no value."""
    values, known = coloring.values, np.isfinite(coloring.values)
    colors = np.tile(_rgba(MISSING), (len(values), 1))
    if coloring.categories:
        table = np.stack([_rgba(category.color) for category in coloring.categories])
        colors[known] = table[values[known].astype(np.int64)]
    elif known.any():
        shares = (values[known] - coloring.low) / (coloring.high - coloring.low)
        colors[known] = color_map(coloring.color_map)(np.clip(shares, 0.0, 1.0))
    return colors


def _rgba(color: str) -> Floats:
    return np.array([*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0])


def drawing_order(coloring: Coloring) -> NDArray[np.int64]:
    """The order in which points are drawn: mixed, so that no category covers another; rare extremes of a scale last."""
    mixed = np.random.default_rng(0).permutation(len(coloring.values))
    if coloring.categories:
        counts = np.array([category.count for category in coloring.categories])
        rare = counts < 0.05 * len(mixed)
        known = np.isfinite(coloring.values)
        on_top = np.zeros(len(mixed))
        on_top[known] = rare[coloring.values[known].astype(np.int64)]
        return mixed[np.argsort(on_top[mixed], kind="stable")]
    middle = np.nanmedian(coloring.values) if np.isfinite(coloring.values).any() else 0.0
    reach = max(coloring.high - middle, middle - coloring.low)
    far = np.nan_to_num(np.abs(coloring.values - middle), nan=-1.0, posinf=-1.0, neginf=-1.0) > 0.9 * reach
    return mixed[np.argsort(far[mixed], kind="stable")]
