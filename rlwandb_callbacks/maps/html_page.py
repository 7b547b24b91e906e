"""A data set's map as an interactive page: one HTML file that contains Plotly and needs nothing from the network."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.core.transitions import Transitions
from rlwandb_callbacks.core.values import Html
from rlwandb_callbacks.maps.coloring import MISSING_COLOR, Category, Coloring, action_name, color_map, drawing_order
from rlwandb_callbacks.maps.data_map import DataMap
from rlwandb_callbacks.maps.features import evenly_spaced
from rlwandb_callbacks.maps.figures import colorings, subtitle
from rlwandb_callbacks.maps.table import action_columns

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Points of one style: their rows in the map, in drawing order, and arguments of Plotly's ``Scattergl``.
Layer: TypeAlias = tuple[NDArray[np.int64], dict[str, Any]]
# From rows of the map to the arguments of ``Scattergl`` for the texts that are shown for these points.
Hover: TypeAlias = Callable[[NDArray[np.int64]], dict[str, Any]]
INSTALL_PLOTLY = 'pip install "rlwandb-callbacks[interactive]"'
MIN_MARKER_SIZE = 5.0
MAX_MARKER_SIZE = 10.0
OPACITY = 0.85
HALF_WIDTH = 32_000
COLOR_STEPS = 33
# Categories are drawn in turns, a quarter of each at a time, so that none covers another.
BLOCKS = 4
HINT = "Wheel: zoom · drag: move · double-click: reset · hover: values · click in the legend: hide or show"
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  html, body {{ height: 100%; margin: 0; }}
  body {{ display: flex; flex-direction: column; font: 13px/1.4 system-ui, sans-serif; color: #5c6470; }}
  header {{ flex: none; max-height: 35%; overflow-y: auto; padding: 8px 14px 0; }}
  h1 {{ font-size: 17px; margin: 0; color: #222831; }}
  ul {{ margin: 2px 0; padding: 0; list-style: none; color: #b45309; }}
  main {{ flex: 1; min-height: 250px; }}
  main > div {{ height: 100%; }}
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<div id="about">{about}</div>
<ul id="warnings">{warnings}</ul>
</header>
<main>{plot}</main>
</body>
</html>
"""


def has_plotly() -> bool:
    """Returns whether Plotly, which draws the page, is installed."""
    return find_spec("plotly") is not None


def interactive_page(data_map: DataMap, *, max_rows: int) -> Html:
    """Returns a page with a map to zoom, move, hover and recolor, on which categories can be hidden.

    Warnings about the data are at its top. The points of a map with more than ``max_rows`` are thinned evenly.
    """
    keep = evenly_spaced(len(data_map), max_rows)
    thinned = "" if len(keep) == len(data_map) else f"{len(keep):,} points of "
    plot = _figure(data_map, keep).to_html(
        config={
            "displaylogo": False,
            "modeBarButtons": [["toImage"], ["pan2d", "zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
            "responsive": True,
            "scrollZoom": True,
            "showSendToCloud": False,  # by default, a button uploads the points
        },
        include_plotlyjs=True,
        include_mathjax=False,
        full_html=False,
        div_id="map",
    )
    return Html(
        PAGE.format(
            title=html.escape(data_map.name),
            about=html.escape(f"{thinned}{subtitle(data_map)} · {HINT}"),
            warnings="".join(f"<li>{html.escape(warning)}</li>" for warning in data_map.warnings),
            plot=plot,
        )
    )


def _plain(text: str) -> str:
    """Escapes a text, of which Plotly would interpret markup such as ``<b>`` and ``<a href>``."""
    return html.escape(text, quote=False)


def _figure(data_map: DataMap, keep: NDArray[np.int64]) -> Figure:
    from plotly.graph_objects import Figure, Scattergl

    hover = _hover(data_map.transitions)
    options = list(chain.from_iterable(colorings(data_map).values()))
    groups = [_layers(coloring, keep, hover) for coloring in options]
    # The values of all points are needed once for all scales; categories, which can be hidden, have their own.
    on_scale = (keep, {"marker": {"opacity": 0}, "showlegend": False, **hover(keep)})
    layers = [on_scale, *chain.from_iterable(groups)]
    visible = [
        [not coloring.categories, *(group is own for group in groups for _ in group)]
        for coloring, own in zip(options, groups, strict=True)
    ]
    first = next((i for i, coloring in enumerate(options) if not coloring.note), 0)
    maps = {"states": _in_square(data_map.states), "states with actions": _in_square(data_map.state_actions)}
    figure = Figure(layout=_plot_layout(options[first]))
    for (rows, style), is_visible in zip(layers, visible[first], strict=True):
        x, y = maps["states"][rows].T
        figure.add_trace(Scattergl(x=x, y=y, mode="markers", visible=is_visible, **style))
    figure.update_traces(marker_size=float(np.clip(450 / np.sqrt(len(keep)), MIN_MARKER_SIZE, MAX_MARKER_SIZE)))
    choose_map = [
        _button(f"Map of {name}", {axis: [points[rows, i] for rows, _ in layers] for i, axis in enumerate("xy")})
        for name, points in maps.items()
    ]
    choose_color = [
        _button(f"Color: {coloring.label}", {"visible": flags}, {"legend.title.text": _legend_title(coloring)})
        for coloring, flags in zip(options, visible, strict=True)
    ]
    figure.update_layout(updatemenus=[_menu(choose_map, left=0), _menu(choose_color, left=210, active=first)])
    return figure


def _plot_layout(coloring: Coloring) -> dict[str, Any]:
    axis = {"visible": False, "range": [-1.05 * HALF_WIDTH, 1.05 * HALF_WIDTH]}
    return {
        "template": "none",
        "margin": {"l": 14, "r": 14, "t": 50, "b": 10},
        "xaxis": axis,
        "yaxis": axis | {"scaleanchor": "x"},
        "dragmode": "pan",
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "#222831", "font": {"color": "white"}, "align": "left"},
        "legend": {"title": {"text": _legend_title(coloring)}, "itemsizing": "constant"},
    }


def _legend_title(coloring: Coloring) -> str:
    return _plain(f"{coloring.label} ({coloring.note})" if coloring.note else coloring.label)


def _button(label: str, *changes: dict[str, Any]) -> dict[str, Any]:
    return {"label": _plain(label), "method": "update", "args": list(changes)}


def _menu(buttons: list[dict[str, Any]], *, left: float, active: int = 0) -> dict[str, Any]:
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"l": left, "b": 8}}
    return {"buttons": buttons, "active": active, **place}


def _in_square(points: Floats) -> NDArray[np.int16]:
    """Returns points as whole numbers around zero, both axes on one scale."""
    low, high = points.min(axis=0), points.max(axis=0)
    half = float((high - low).max()) / 2 or 1.0
    return np.asarray(np.round((points - (low + high) / 2) / half * HALF_WIDTH), dtype=np.int16)


def _hover(transitions: Transitions) -> Hover:
    """Returns the texts of points: position in the episode, action, reward, return, observation."""
    spec, actions = transitions.action_spec, action_columns(transitions)
    names: NDArray[np.str_] | None = None
    lines = ["episode %{customdata[0]:,d} · step %{customdata[1]:,d} of %{customdata[2]:,d}"]
    if isinstance(spec, DiscreteActions) and "action" in actions:
        names = np.array([_plain(action_name(spec, action)) for action in actions.pop("action").tolist()])
        lines.append("action: %{text}")
    numbers = {
        "reward": transitions.rewards,
        "episode return": transitions.returns,
        **actions,
        **{f"observation[{i}]": column for i, column in enumerate(transitions.observations.T)},
    }
    position = (transitions.episodes, transitions.steps, transitions.lengths)
    values = np.stack([*position, *numbers.values()], axis=1).astype(np.float32)
    lines += [f"{name}: %{{customdata[{i}]:,.5~g}}" for i, name in enumerate(numbers, start=len(position))]
    template = "<br>".join(lines) + "<extra></extra>"

    def style(rows: NDArray[np.int64]) -> dict[str, Any]:
        text = {} if names is None else {"text": names[rows].tolist()}
        return {"customdata": values[rows], "hovertemplate": template, **text}

    return style


def _layers(coloring: Coloring, keep: NDArray[np.int64], hover: Hover) -> list[Layer]:
    order = drawing_order(coloring)
    order = order[np.isin(order, keep)]
    return list(_category_layers(coloring, order, hover) if coloring.categories else _scale_layers(coloring, order))


def _category_layers(coloring: Coloring, order: NDArray[np.int64], hover: Hover) -> Iterator[Layer]:
    missing = int(np.isnan(coloring.values).sum())
    categories = [*coloring.categories, Category("no value", MISSING_COLOR, missing)]
    indices = np.nan_to_num(coloring.values, nan=len(coloring.categories)).astype(np.int64)
    common_first = sorted(range(len(categories)), key=lambda i: -categories[i].count)
    in_legend: set[int] = set()
    for block in np.array_split(order, BLOCKS):
        for i in common_first:
            rows = block[indices[block] == i]
            if len(rows):
                style = {
                    "name": _plain(f"{categories[i].name} ({categories[i].count:,})"),
                    "legendgroup": str(i),
                    "legendrank": i,
                    "showlegend": i not in in_legend,
                    "marker": {"color": categories[i].color, "opacity": OPACITY},
                }
                yield rows, style | hover(rows)
                in_legend.add(i)


def _scale_layers(coloring: Coloring, order: NDArray[np.int64]) -> Iterator[Layer]:
    common = {"showlegend": False, "hoverinfo": "skip"}
    known = np.isfinite(coloring.values[order])
    if not known.all():
        yield order[~known], common | {"marker": {"color": MISSING_COLOR, "opacity": OPACITY}}
    if known.any():
        steps = np.linspace(0, 1, COLOR_STEPS)
        marker = {
            "color": coloring.values[order[known]].astype(np.float32),
            "cmin": coloring.low,
            "cmax": coloring.high,
            "colorscale": [(step, to_hex(color_map(coloring.color_map)(step))) for step in steps],
            "colorbar": {"title": {"text": _legend_title(coloring)}},
            "opacity": OPACITY,
        }
        yield order[known], common | {"marker": marker}
