"""Pictures of a data set on its map, and of the states that a policy visits there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rlwandb_callbacks.core.values import Image, Value
from rlwandb_callbacks.maps.coloring import Coloring, by_action, by_number
from rlwandb_callbacks.maps.data_map import DataMap
from rlwandb_callbacks.maps.policy_on_map import PlacedStates
from rlwandb_callbacks.maps.scatter import GRAY, draw_points, frame, marker_area, new_figure, panel_grid
from rlwandb_callbacks.media.figures import pixels_of

MIN_VISITED_AREA = 14.0
COLORS = ("reward", "action", "return", "time")


def colorings(data_map: DataMap) -> dict[str, list[Coloring]]:
    """What the points of a map can be colored by: each of ``COLORS``, of which actions may be several."""
    rows = data_map.transitions
    progress = (rows.steps + 0.5) / np.maximum(rows.lengths, 1)
    return {
        "reward": [by_number("reward", rows.rewards)],
        "action": by_action(rows.actions, rows.action_spec),
        "return": [by_number("episode return", rows.returns)],
        "time": [by_number("share of the episode", progress, shades="plasma", limits=(0.0, 1.0))],
    }


def axis_name(data_map: DataMap) -> str:
    """What the axes of the map are called."""
    return "t-SNE" if data_map.how.startswith("t-SNE") else "component"


def subtitle(data_map: DataMap) -> str:
    """The line that every picture carries: the size of the sample first."""
    return " · ".join([data_map.size_text, data_map.how, *data_map.notes])


def overview(data_map: DataMap) -> Figure:
    """Six panels: states by reward, action, return and time, and states with actions by reward and action."""
    colors = colorings(data_map)
    action = colors["action"][0]
    first = f" (of {width} dimensions)" if (width := action_width(data_map)) > 1 else ""
    panels = [
        ("State by reward", data_map.states, colors["reward"][0]),
        (f"State by {action.label}{first}", data_map.states, action),
        ("State + action by reward", data_map.state_actions, colors["reward"][0]),
        ("State by episode return", data_map.states, colors["return"][0]),
        ("State by time in the episode", data_map.states, colors["time"][0]),
        (f"State + action by {action.label}{first}", data_map.state_actions, action),
    ]
    figure = new_figure(15, 12, title=data_map.name, subtitle=subtitle(data_map), warnings=data_map.warnings)
    for axes, (title, points, coloring) in zip(panel_grid(figure, len(panels)), panels, strict=True):
        draw_points(axes, points, coloring, title=title, axis=axis_name(data_map))
    return figure


def action_width(data_map: DataMap) -> int:
    """Numbers in an action."""
    actions = data_map.transitions.actions
    return int(np.prod(actions.shape[1:]))


def single(data_map: DataMap, key: str, *, with_actions: bool = False) -> Figure:
    """One quantity, large; as many panels as an action has dimensions, up to six.

    Args:
        data_map: The map.
        key: Of :func:`colorings`.
        with_actions: On the map of states with actions.
    """
    points = data_map.state_actions if with_actions else data_map.states
    place = "State + action" if with_actions else "State"
    chosen = colorings(data_map)[key]
    size = SIZES.get(len(chosen), (15, 12))
    left_out = action_width(data_map) - len(chosen) if key == "action" and len(chosen) > 1 else 0
    notes = f" · {left_out} further dimensions not shown" if left_out > 0 else ""
    figure = new_figure(*size, title=data_map.name, subtitle=subtitle(data_map) + notes)
    for axes, coloring in zip(panel_grid(figure, len(chosen)), chosen, strict=True):
        draw_points(
            axes, points, coloring, title=f"{place} by {TITLES.get(key, coloring.label)}", axis=axis_name(data_map)
        )
    return figure


SIZES = {1: (7.5, 8.6), 2: (12, 7.4), 3: (15, 6.6), 4: (11, 12.5)}
TITLES = {"return": "episode return", "time": "time in the episode"}


def pictures(data_map: DataMap, names: Sequence[str]) -> dict[str, Value]:
    """Pictures of a map by their keys.

    Args:
        data_map: The map.
        names: ``overview``, ``state_by_reward``, ``state_by_action``, ``state_by_return``, ``state_by_time``,
            ``state_action_by_reward``, …

    Returns:
        Under ``dataset/<name>``.
    """
    return {f"dataset/{name}": Image(pixels_of(figure_named(data_map, name)), caption(data_map)) for name in names}


def figure_named(data_map: DataMap, name: str) -> Figure:
    """The picture of a name; see :func:`pictures`."""
    place, _, key = name.rpartition("_by_")
    return overview(data_map) if name == "overview" else single(data_map, key, with_actions=place == "state_action")


def caption(data_map: DataMap) -> str:
    """The text under a picture."""
    return " ".join([subtitle(data_map), *data_map.warnings])


def policy_on_data(placed: PlacedStates, data_map: DataMap) -> Figure:
    """The states that a policy visits over the greyed data: how far they are from it, and when they come.

    Args:
        placed: The states.
        data_map: The map that they were placed on.
    """
    visited = placed.visited
    distance = by_distance(placed)
    time = by_number("share of the episode", (visited.steps + 0.5) / visited.lengths, shades="plasma", limits=(0, 1))
    episodes = len(np.unique(visited.episodes))
    shown = f"{len(visited):,} states of {episodes} evaluation episode{'s' * (episodes > 1)} on {data_map.size_text}"
    line = f"{shown} · ood_ratio {placed.ratio:.3g}"
    figure = new_figure(13, 8, title=f"The policy on {data_map.name}", subtitle=line)
    titles = ("Visited states by distance to the data", "Visited states by time in the episode")
    area = max(MIN_VISITED_AREA, marker_area(len(visited)))
    for axes, title, coloring in zip(panel_grid(figure, 2), titles, (distance, time), strict=True):
        draw_data(axes, data_map)
        draw_points(axes, placed.points, coloring, title=title, axis=axis_name(data_map), area=area)
        frame(axes, np.concatenate([data_map.states, placed.points]), axis=axis_name(data_map))
    return figure


def by_distance(placed: PlacedStates) -> Coloring:
    """Colors by the distance to the data, in units of the data's own, on a logarithmic scale from 1 on."""
    decades = np.log10(np.maximum(placed.ratios, 1.0))
    high = max(1.0, float(np.quantile(decades, 0.99)))
    marks = [mark * 10**decade for decade in range(int(high) + 1) for mark in ((1, 2, 5) if high < 3 else (1,))]
    return Coloring(
        label="distance to the data (1: as near as they are to each other)",
        values=np.minimum(decades, high),
        high=high,
        color_map="distance",
        ticks=tuple((float(np.log10(mark)), f"{mark:,}") for mark in marks if np.log10(mark) <= high + 1e-9),
    )


def draw_data(axes: object, data_map: DataMap) -> None:
    """Draws the data in gray."""
    points = data_map.states
    axes.scatter(*points.T, c=GRAY, s=0.6 * marker_area(len(points)), linewidths=0, rasterized=True)  # type: ignore[attr-defined]  # matplotlib's Axes
