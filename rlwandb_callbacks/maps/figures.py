"""Figures of a data set on its map, and of the states that a policy visits there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.core.values import Image, Value
from rlwandb_callbacks.maps.coloring import Coloring, by_action, by_number
from rlwandb_callbacks.maps.data_map import DataMap
from rlwandb_callbacks.maps.policy_on_map import PlacedStates
from rlwandb_callbacks.maps.scatter import draw_points, new_figure, panel_grid
from rlwandb_callbacks.media.figures import pixels_of

COLORINGS = ("reward", "action", "return", "time")
SIZES = {1: (7.5, 8.6), 2: (12, 7.4), 3: (15, 6.6), 4: (11, 12.5)}
TITLES = {"return": "episode return", "time": "time in the episode"}


def colorings(data_map: DataMap) -> dict[str, list[Coloring]]:
    """Returns the colorings of a map by name, each of ``COLORINGS``; actions may have several."""
    rows = data_map.transitions
    return {
        "reward": [by_number("reward", rows.rewards)],
        "action": by_action(rows.actions, rows.action_spec),
        "return": [by_number("episode return", rows.returns)],
        "time": [by_time(rows.steps, rows.lengths)],
    }


def by_time(steps: NDArray[np.int64], lengths: NDArray[np.int64]) -> Coloring:
    """Colors states by their time in the episode, from its start (0) to its end (1)."""
    progress = (steps + 0.5) / np.maximum(lengths, 1)
    return by_number("fraction of the episode", progress, colors="plasma", limits=(0.0, 1.0))


def axis_name(data_map: DataMap) -> str:
    """Returns the name of the axes of a map."""
    return "t-SNE" if data_map.method.startswith("t-SNE") else "component"


def subtitle(data_map: DataMap) -> str:
    """Returns the line that every picture carries, beginning with the size of the sample."""
    return " · ".join([data_map.size_text, data_map.method, *data_map.notes])


def pictures(data_map: DataMap, names: Sequence[str]) -> dict[str, Value]:
    """Returns pictures of a map by key, ``dataset/<name>``; see :func:`figure_named` for the names."""
    caption = " ".join([subtitle(data_map), *data_map.warnings])
    return {f"dataset/{name}": Image(pixels_of(figure_named(data_map, name)), caption) for name in names}


def figure_named(data_map: DataMap, name: str) -> Figure:
    """Returns a figure by its name: ``overview``, ``state_by_<key>`` or ``state_action_by_<key>``, of ``COLORINGS``."""
    if name == "overview":
        return _overview(data_map)
    layout, _, key = name.rpartition("_by_")
    return _single(data_map, key, with_actions=layout == "state_action")


def _overview(data_map: DataMap) -> Figure:
    """Returns six panels: states by reward, action, return and time, and states with actions by reward and action."""
    colors = {key: first for key, (first, *_) in colorings(data_map).items()}
    width = action_width(data_map)
    action = colors["action"].label + (f" (of {width} dimensions)" if width > 1 else "")
    panels = [
        ("State by reward", data_map.states, colors["reward"]),
        (f"State by {action}", data_map.states, colors["action"]),
        ("State + action by reward", data_map.state_actions, colors["reward"]),
        ("State by episode return", data_map.states, colors["return"]),
        ("State by time in the episode", data_map.states, colors["time"]),
        (f"State + action by {action}", data_map.state_actions, colors["action"]),
    ]
    figure = new_figure(15, 12, title=data_map.name, subtitle=subtitle(data_map), warnings=data_map.warnings)
    for axes, (title, points, coloring) in zip(panel_grid(figure, len(panels)), panels, strict=True):
        draw_points(axes, points, coloring, title=title, axis=axis_name(data_map))
    return figure


def _single(data_map: DataMap, key: str, *, with_actions: bool) -> Figure:
    """Returns a large figure of one quantity: one panel, or one per dimension of an action (the first six)."""
    points = data_map.state_actions if with_actions else data_map.states
    prefix = "State + action" if with_actions else "State"
    chosen = colorings(data_map)[key]
    left_out = action_width(data_map) - len(chosen) if len(chosen) > 1 else 0
    notes = f" · {left_out} further dimensions not shown" if left_out else ""
    figure = new_figure(*SIZES.get(len(chosen), (15, 12)), title=data_map.name, subtitle=subtitle(data_map) + notes)
    for axes, coloring in zip(panel_grid(figure, len(chosen)), chosen, strict=True):
        title = f"{prefix} by {TITLES.get(key, coloring.label)}"
        draw_points(axes, points, coloring, title=title, axis=axis_name(data_map))
    return figure


def action_width(data_map: DataMap) -> int:
    """Returns the number of dimensions of an action."""
    return int(np.prod(data_map.transitions.actions.shape[1:]))


def policy_on_data(placed: PlacedStates, data_map: DataMap) -> Figure:
    """Returns a figure of the states that a policy visits, by distance from the data and by time, over gray data."""
    visited = placed.visited
    panels = {
        "Visited states by distance from the data": by_distance(placed.ratios),
        "Visited states by time in the episode": by_time(visited.steps, visited.lengths),
    }
    episodes = len(np.unique(visited.episodes))
    shown = f"{len(visited):,} states of {episodes} evaluation episode{'s' * (episodes > 1)} on {data_map.size_text}"
    line = f"{shown} · ood_ratio {placed.ratio:.3g}"
    figure = new_figure(13, 8, title=f"The policy on {data_map.name}", subtitle=line)
    for axes, (title, coloring) in zip(panel_grid(figure, 2), panels.items(), strict=True):
        draw_points(axes, placed.points, coloring, title=title, axis=axis_name(data_map), background=data_map.states)
    return figure


def by_distance(ratios: Floats) -> Coloring:
    """Colors states by distance from the data, relative to distances in the data, on a logarithmic scale from 1."""
    decades = np.log10(np.maximum(ratios, 1.0))
    finite = decades[np.isfinite(decades)]  # distances overflow where a policy is far away
    high = max(1.0, float(np.quantile(finite, 0.99))) if finite.size else 1.0
    marks = [mark * 10**decade for decade in range(int(high) + 1) for mark in ((1, 2, 5) if high < 3 else (1,))]
    return Coloring(
        label="distance from the data (1: as far as they are from each other)",
        values=np.minimum(decades, high),
        high=high,
        color_map="distance",
        ticks=tuple((float(np.log10(mark)), f"{mark:,}") for mark in marks if np.log10(mark) <= high + 1e-9),
    )
