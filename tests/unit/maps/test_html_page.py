"""The interactive page: its data, and in Chromium what it shows and does."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlwandb_callbacks.core.action_spec import ContinuousActions, DiscreteActions
from rlwandb_callbacks.core.values import Html
from rlwandb_callbacks.maps.data_map import DataMap
from rlwandb_callbacks.maps.html_page import interactive_page

pytest.importorskip("plotly")

MakeMap = Callable[..., DataMap]
MARKUP = ("<img src=x onerror=alert(1)>", "<b>bold</b>", '<a href="javascript:alert(1)">link</a>', "</script><i>&lt;")
WARNINGS = ("All <b>episodes</b> are odd.", "So are the </script> steps.")


class Elements(HTMLParser):
    """Collects the elements of a page, with their attributes, and the text outside of scripts and styles."""

    def __init__(self, page: Html) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(page.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.setdefault(self.found[-1][0], []).append(data)


def plot_of(page: Html) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the traces and the layout that the page gives to Plotly."""
    start = re.search(r'Plotly\.newPlot\(\s*"map",\s*', page.text)
    assert start is not None
    traces, end = json.JSONDecoder().raw_decode(page.text, start.end())
    layout, _ = json.JSONDecoder().raw_decode(page.text, page.text.index("{", end))
    return traces, layout


def array_of(packed: dict[str, str]) -> np.ndarray:
    """Unpacks an array of Plotly's JSON."""
    values = np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])
    return values.reshape([int(side) for side in packed.get("shape", str(len(values))).split(",")])


def strings_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, entry in value.items() if key != "hovertemplate" for text in strings_in(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in strings_in(entry)]
    return [value] if isinstance(value, str) else []


def test_the_page_contains_everything_it_needs(make_data_map: MakeMap) -> None:
    elements = Elements(interactive_page(make_data_map(), max_rows=100))
    assert not [attributes for _, attributes in elements.found if {"src", "href", "integrity"} & attributes.keys()]
    assert not {tag for tag, _ in elements.found} & {"link", "img", "iframe", "object", "base"}
    assert not [text for text in elements.texts["style"] if "url(" in text or "@import" in text]


def test_names_and_warnings_are_text(make_data_map: MakeMap) -> None:
    plain = interactive_page(replace(make_data_map(), warnings=("a", "b")), max_rows=100)
    spec = DiscreteActions(MARKUP)
    data_map = make_data_map(actions=np.arange(60) % 4, action_spec=spec)
    page = interactive_page(replace(data_map, name=MARKUP[3], warnings=WARNINGS), max_rows=100)
    elements = Elements(page)
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in Elements(plain).found]
    assert elements.texts["h1"] == elements.texts["title"] == [MARKUP[3]]
    assert elements.texts["li"] == list(WARNINGS)
    traces, layout = plot_of(page)
    strings = strings_in(traces) + strings_in(layout)
    assert any("&lt;b&gt;bold" in text for text in strings)
    assert not any("<" in text for text in strings)


def test_the_page_holds_positions_colors_and_values_of_all_points(make_data_map: MakeMap) -> None:
    data_map = make_data_map()
    page = interactive_page(data_map, max_rows=1_000)
    traces, layout = plot_of(page)
    values = array_of(traces[0]["customdata"])
    assert values.shape == (60, 8)
    assert values[17].tolist() == pytest.approx([1, 7, 10, 17 / 59, 1, *data_map.transitions.observations[17]])
    assert traces[0]["text"] == ["left", "right"] * 30
    choose_map, choose_color = layout["updatemenus"]
    assert [button["label"] for button in choose_map["buttons"]] == ["Map of states", "Map of states with actions"]
    for button, expected in zip(choose_map["buttons"], (data_map.states, data_map.state_actions), strict=True):
        points = np.column_stack([button["args"][0][axis][0] for axis in "xy"])
        scale = np.ptp(expected, axis=0).max() / np.ptp(points, axis=0).max()
        assert np.allclose((points - points[0]) * scale, expected - expected[0], atol=1e-3)
    labels = [button["label"] for button in choose_color["buttons"]]
    assert labels == ["Color: reward", "Color: action", "Color: episode return", "Color: fraction of the episode"]
    shown = [np.flatnonzero(button["args"][0]["visible"]) for button in choose_color["buttons"]]
    (reward,) = (traces[i]["marker"] for i in shown[0] if i)
    assert sorted(array_of(reward["color"])) == pytest.approx(sorted(data_map.transitions.rewards))
    names = {traces[i]["name"] for i in shown[1]}
    assert names == {"left (30)", "right (30)"}
    assert sum(len(array_of(traces[i]["x"])) for i in shown[1]) == 60
    assert sum(traces[i]["showlegend"] for i in shown[1]) == 2


def test_rare_points_are_drawn_on_top(make_data_map: MakeMap, rng: np.random.Generator) -> None:
    rewards = np.zeros(400)
    rewards[[3, 200]] = 1.0
    data_map = make_data_map(rng.normal(size=(400, 3)), rewards=rewards)
    traces, layout = plot_of(interactive_page(data_map, max_rows=1_000))
    shown = np.flatnonzero(layout["updatemenus"][1]["buttons"][0]["args"][0]["visible"])
    assert [traces[i]["name"] for i in shown][-1] == "1 (2)"
    assert [traces[i]["name"] for i in shown].count("1 (2)") == 1


def test_points_without_a_value_are_gray_and_can_be_hidden(make_data_map: MakeMap) -> None:
    returns = np.repeat([1.0, np.nan], 30)
    traces, layout = plot_of(interactive_page(make_data_map(returns=returns), max_rows=1_000))
    shown = np.flatnonzero(layout["updatemenus"][1]["buttons"][2]["args"][0]["visible"])
    assert {traces[i]["name"]: traces[i]["marker"]["color"] for i in shown}["no value (30)"] == "#c8c8c8"


def test_a_large_map_is_thinned_and_the_page_says_so(make_data_map: MakeMap) -> None:
    page = interactive_page(make_data_map(), max_rows=20)
    assert array_of(plot_of(page)[0][0]["customdata"]).shape[0] == 20
    assert "20 points of 60 of 1,000 transitions" in page.text


def test_the_size_of_the_page_is_bounded(make_data_map: MakeMap, rng: np.random.Generator) -> None:
    spec = ContinuousActions(-np.ones(9), np.ones(9))
    data_map = make_data_map(rng.normal(size=(1_000, 20)), actions=rng.uniform(-1, 1, (1_000, 9)), action_spec=spec)
    sizes = [len(interactive_page(data_map, max_rows=rows).text) for rows in (100, 1_000)]
    assert (sizes[1] - sizes[0]) / 900 < 800  # bytes per point


SCRIPT = """<script>
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const fire = (element, type, x, y) => {
  const box = element.getBoundingClientRect();
  const at = { clientX: x ?? box.x + box.width / 2, clientY: y ?? box.y + box.height / 2 };
  element.dispatchEvent(new MouseEvent(type, { bubbles: true, cancelable: true, view: window, ...at }));
};
const all = (selector) => [...document.querySelectorAll(selector)];
const choose = async (menu, text) => {
  fire(all(".updatemenu-header")[menu], "click");
  await wait(300);
  fire(all(".updatemenu-dropdown-button").find((button) => button.textContent === text), "click");
  await wait(800);
};
const legend = () => all(".legend .traces").map((entry) => [entry.textContent, Number(entry.style.opacity)]);
const plot = document.getElementById("map");
const shown = () => plot._fullData.filter((trace) => trace.visible === true);
const hover = async () => {
  const trace = shown()[0], box = document.querySelector(".nsewdrag").getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout;
  fire(document.querySelector(".nsewdrag"), "mousemove", box.x + xaxis.c2p(trace.x[0]), box.y + yaxis.c2p(trace.y[0]));
  await wait(500);
  return all(".hovertext text").map((text) => [...text.querySelectorAll("tspan")].map((line) => line.textContent));
};
(async () => {
  const seen = {}, result = document.createElement("pre");
  await wait(2500);
  try {
    ACTIONS
  } catch (error) {
    seen.error = String(error.stack);
  }
  result.id = "result";
  result.textContent = JSON.stringify(seen);
  result.style.display = "none";
  document.body.append(result);
})();
</script>"""
IN_CHROMIUM = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")


def chromium(tmp_path: Path, page: Html, *arguments: str, actions: str = "") -> Any:
    """Opens a page in Chromium, and returns what the actions stored in ``seen``.

    Args:
        tmp_path: Folder for the page and for Chromium's profile.
        page: The page.
        arguments: Further arguments of Chromium.
        actions: JavaScript that uses the functions of ``SCRIPT``.
    """
    file = tmp_path / "page.html"
    file.write_text(page.text + SCRIPT.replace("ACTIONS", actions))
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-unsafe-swiftshader",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1000,800",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--dump-dom",
        *arguments,
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line and "WebGL" not in line]
    (result,) = re.findall(r'<pre id="result"[^>]*>(.*?)</pre>', done.stdout)
    seen = json.loads(re.sub("&(lt|gt|amp);", lambda found: {"lt": "<", "gt": ">", "amp": "&"}[found[1]], result))
    assert "error" not in seen, seen
    return seen


@IN_CHROMIUM
def test_a_browser_draws_the_points(make_data_map: MakeMap, tmp_path: Path, rng: np.random.Generator) -> None:
    states = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + 30])
    page = interactive_page(make_data_map(states, rewards=np.repeat([0.0, 1.0], 30)), max_rows=100)
    screenshot = tmp_path / "screenshot.png"
    chromium(tmp_path, page, f"--screenshot={screenshot}")
    pixels = np.asarray(Image.open(screenshot).convert("RGB")).astype(int)[150:, :800]
    dark = np.argwhere(np.abs(pixels - [68, 1, 84]).sum(axis=2) < 120)
    light = np.argwhere(np.abs(pixels - [189, 223, 38]).sum(axis=2) < 120)
    assert min(len(dark), len(light)) > 200
    assert np.linalg.norm(dark.mean(axis=0) - light.mean(axis=0)) > 300


@IN_CHROMIUM
def test_in_a_browser_points_can_be_recolored_hidden_and_hovered(make_data_map: MakeMap, tmp_path: Path) -> None:
    data_map = make_data_map(actions=np.arange(60) % 4, action_spec=DiscreteActions(MARKUP))
    page = interactive_page(replace(data_map, name=MARKUP[0], warnings=WARNINGS), max_rows=100)
    seen = chromium(
        tmp_path,
        page,
        actions="""
        seen.top = [all("h1")[0].textContent, all("#warnings li").map((line) => line.textContent)];
        const box = plot.getBoundingClientRect();
        seen.warningsAboveThePlot = all("#warnings")[0].getBoundingClientRect().bottom <= box.y;
        seen.fills = box.bottom >= window.innerHeight - 5;
        seen.scale = [legend().length, all(".colorbar").length, await hover()];
        await choose(1, "Color: action");
        seen.categories = [legend(), all(".colorbar").length, await hover()];
        seen.states = Array.from(shown()[0].x);
        await choose(0, "Map of states with actions");
        seen.pairs = Array.from(shown()[0].x);
        const entry = all(".legend .legendtoggle")[0];
        fire(entry, "mousedown");
        fire(entry, "mouseup");
        await wait(1000);
        seen.hidden = [legend().map((entry) => entry[1]), new Set(shown().map((trace) => trace.legendgroup)).size];
        seen.resources = performance.getEntriesByType("resource").length;
        seen.markup = all("a[href], img, svg b, svg i, svg a").length;
        seen.buttons = all(".modebar-btn").map((button) => button.dataset.title);
        """,
    )
    assert seen["top"] == [MARKUP[0], list(WARNINGS)]
    assert seen["warningsAboveThePlot"]
    assert seen["fills"]
    legend_length, color_bars, ((first, *further),) = seen["scale"]
    assert (legend_length, color_bars) == (0, 1)
    assert re.fullmatch(r"episode \d · step \d of 10", first)
    assert [line.split(":")[0] for line in further[:3]] == ["action", "reward", "episode return"]
    assert [line.split(":")[0] for line in further[3:]] == [f"observation[{i}]" for i in range(3)]
    legend, color_bars, (hover,) = seen["categories"]
    assert color_bars == 0
    assert [text for text, _ in legend] == [f"{name if len(name) <= 18 else name[:17] + '…'} (15)" for name in MARKUP]
    assert hover[1].removeprefix("action: ") in MARKUP
    assert seen["states"] != seen["pairs"]
    assert seen["hidden"] == [[0.5, 1, 1, 1], 3]
    assert seen["resources"] == seen["markup"] == 0
    assert not [title for title in seen["buttons"] if "loud" in title or "hare" in title]
