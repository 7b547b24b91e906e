from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from rlwandb_callbacks.core.action_spec import ContinuousActions, DiscreteActions
from rlwandb_callbacks.maps.coloring import MISSING_COLOR, by_action, by_number, drawing_order, rgba_colors
from rlwandb_callbacks.maps.data_map import DataMap
from rlwandb_callbacks.maps.figures import by_distance, figure_named, pictures, policy_on_data
from rlwandb_callbacks.maps.policy_on_map import VisitedStates, place
from rlwandb_callbacks.media.figures import pixels_of

MakeMap = Callable[..., DataMap]


def texts(figure: Figure) -> list[str]:
    """Returns all texts on a figure."""
    figure.canvas.draw()
    return [
        text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_visible()
    ]


def colors_on(figure: Figure) -> int:
    return len(np.unique(pixels_of(figure).astype(np.int64) @ [65_536, 256, 1]))


def test_a_scale_has_many_colors_from_dark_to_light() -> None:
    colors = rgba_colors(by_number("reward", np.linspace(-3, 5, 100)))
    brightness = colors[:, :3].sum(axis=1)
    assert len(np.unique(colors, axis=0)) > 90
    assert (np.diff(brightness) > 0).mean() > 0.95


def test_outliers_do_not_stretch_the_scale_and_are_marked() -> None:
    coloring = by_number("reward", np.array([*np.linspace(0, 1, 1_000), 1e6, -1e6]))
    assert (coloring.low, coloring.high) == pytest.approx((0, 1), abs=0.1)
    assert coloring.extends == "both"


def test_a_scale_without_outliers_covers_all_values(rng: np.random.Generator) -> None:
    coloring = by_number("reward", rng.uniform(size=1_000))
    assert coloring.extends == "neither"


def test_a_rare_reward_has_its_own_color_and_is_drawn_last() -> None:
    rewards = np.zeros(1_000)
    rewards[[3, 500]] = 1.0
    coloring = by_number("reward", rewards)
    assert [(level.name, level.count) for level in coloring.categories] == [("0", 998), ("1", 2)]
    assert set(drawing_order(coloring)[-2:].tolist()) == {3, 500}


def test_values_that_are_not_finite_are_gray() -> None:
    for values in (np.array([1.0, np.nan, 2.0, np.inf]), np.array([*np.arange(50.0), np.nan])):
        colors = rgba_colors(by_number("reward", values))
        assert np.allclose(colors[~np.isfinite(values), :3], to_rgb(MISSING_COLOR))
        assert not np.allclose(colors[np.isfinite(values), :3], to_rgb(MISSING_COLOR))
    assert by_number("reward", np.full(3, np.nan)).note == "no finite value"


def test_the_scale_of_signed_numbers_is_symmetric() -> None:
    (coloring,) = by_action(np.linspace(-1, 3, 100)[:, None], ContinuousActions(np.full(1, -3.0), np.full(1, 3.0)))
    assert (coloring.low, coloring.high) == (-3, 3)


def test_discrete_actions_have_names_and_different_colors() -> None:
    (coloring,) = by_action(np.array([4, 3, 4]), DiscreteActions(("left", "right"), first=3))
    assert [(each.name, each.count) for each in coloring.categories] == [("left", 1), ("right", 2)]
    assert len(np.unique(rgba_colors(coloring), axis=0)) == 2


def test_the_most_frequent_of_many_actions_have_their_own_colors() -> None:
    actions = np.concatenate([np.repeat(np.arange(30), 2), np.full(50, 29)])
    (coloring,) = by_action(actions, DiscreteActions(tuple(f"a{i}" for i in range(30))))
    assert len(coloring.categories) == 20
    assert [each.name for each in coloring.categories[-2:]] == ["a29", "11 others"]
    assert sum(each.count for each in coloring.categories) == len(actions)
    colors = np.array([to_rgb(each.color) for each in coloring.categories])
    between = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert between[~np.eye(20, dtype=bool)].min() > 0.1  # the rest is distinguishable from every action


@pytest.mark.parametrize("width", [1, 2, 4, 6, 9])
def test_vector_actions_have_a_panel_for_each_of_up_to_six_dimensions(
    width: int, make_data_map: MakeMap, rng: np.random.Generator
) -> None:
    spec = ContinuousActions(-np.ones(width), np.ones(width))
    data_map = make_data_map(actions=rng.uniform(-1, 1, size=(60, width)), action_spec=spec)
    written = texts(figure_named(data_map, "state_by_action"))
    expected = ["State by action"] if width == 1 else [f"State by action[{i}]" for i in range(min(width, 6))]
    assert [text for text in written if text.startswith("State by")] == expected
    assert any("3 further dimensions" in text for text in written) == (width == 9)


def test_the_overview_has_titles_and_the_sample_size(make_data_map: MakeMap) -> None:
    figure = figure_named(make_data_map(total=1_234_567), "overview")
    written = texts(figure)
    assert "planted.npz" in written
    assert any("60 of 1,234,567 transitions" in text and "PCA" in text for text in written)
    for title in (
        "State by reward",
        "State by action",
        "State + action by reward",
        "State by episode return",
        "State by time in the episode",
    ):
        assert title in written
    assert {"component 1", "component 2", "reward", "episode return", "left (50%)", "right (50%)"} <= set(written)


def test_every_picture_has_the_sample_size_titles_labels_and_many_colors(
    make_data_map: MakeMap, rng: np.random.Generator
) -> None:
    names = ("state_by_reward", "state_by_action", "state_by_return", "state_by_time", "state_action_by_reward")
    data_map = make_data_map(actions=rng.uniform(size=60), action_spec=ContinuousActions(np.zeros(1), np.ones(1)))
    for name in names:
        figure = figure_named(data_map, name)
        written = texts(figure)
        assert any("60 of 1,000 transitions" in text for text in written), name
        assert {"component 1", "component 2"} <= set(written), name
        assert colors_on(figure) > 200, name
    values = pictures(data_map, names[:1])
    assert list(values) == ["dataset/state_by_reward"]
    assert values["dataset/state_by_reward"].pixels.ndim == 3  # type: ignore[union-attr]  # an image
    assert "60 of 1,000 transitions" in values["dataset/state_by_reward"].caption  # type: ignore[union-attr]


def test_a_constant_reward_is_in_the_title_and_has_no_scale(make_data_map: MakeMap) -> None:
    figure = figure_named(make_data_map(rewards=np.full(60, 1.0)), "state_by_reward")
    assert "State by reward (always 1)" in texts(figure)
    assert len(figure.axes) == 1


@pytest.mark.parametrize("width", [2, 18, 1_000])
def test_titles_of_constant_vector_actions_stay_within_their_panels(width: int, make_data_map: MakeMap) -> None:
    spec = ContinuousActions(-np.ones(width), np.ones(width))
    actions = np.full((60, width), -1.23456e-5)
    figure = figure_named(make_data_map(actions=actions, action_spec=spec), "overview")
    pixels_of(figure)  # lays it out
    titles = [(axes, text) for axes in figure.axes for text in axes.findobj(Text) if "State" in text.get_text()]
    assert len(titles) == 6
    assert sum("always -1.235e-05" in text.get_text() for _, text in titles) == 2
    for axes, text in titles:
        assert text.get_window_extent().x1 <= axes.get_window_extent().x1, text.get_text()


@pytest.mark.parametrize("name", ["overview", "state_by_reward", "state_by_action"])
def test_long_names_and_notes_stay_within_the_picture(name: str, make_data_map: MakeMap) -> None:
    notes = ("6,137 with NaN or infinite numbers left out", "states: 9 distinct rows are too few for t-SNE")
    data_map = replace(make_data_map(total=10_000_000), name=f"{'halfcheetah-medium-' * 12}v2.hdf5", notes=notes)
    figure = figure_named(data_map, name)
    shown = " ".join(text.get_text() for text in figure.texts)
    assert all(note in shown for note in notes)
    height, width, _ = pixels_of(figure).shape
    boxes = [text.get_window_extent() for text in figure.texts]
    assert all(box.x1 <= width and box.y1 <= height for box in boxes)
    tops = [axes.get_tightbbox().y1 for axes in figure.axes]
    assert max(tops) < min(box.y0 for box in boxes)


def test_the_picture_depends_only_on_the_data(make_data_map: MakeMap) -> None:
    first, again = (pixels_of(figure_named(make_data_map(), "state_by_reward")) for _ in range(2))
    other = pixels_of(figure_named(make_data_map(rewards=np.linspace(1, 0, 60)), "state_by_reward"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_points_are_drawn_at_their_positions(make_data_map: MakeMap, rng: np.random.Generator) -> None:
    states = np.zeros((60, 2))
    states[:30, 0], states[30:, 0] = -5, 5
    states += rng.normal(size=(60, 2)) * 0.1
    figure = figure_named(make_data_map(states, rewards=np.repeat([0.0, 1.0], 30)), "state_by_reward")
    pixels = pixels_of(figure)[150:650]
    dark, light = to_rgb("#440154"), to_rgb("#bddf26")
    where = [np.argwhere(np.abs(pixels / 255 - color).sum(axis=2) < 0.45) for color in (dark, light)]
    assert all(len(found) > 100 for found in where)
    assert np.linalg.norm(np.median(where[0], axis=0) - np.median(where[1], axis=0)) > 250


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points_can_be_drawn(count: int, make_data_map: MakeMap, rng: np.random.Generator) -> None:
    data_map = make_data_map(rng.normal(size=(count, 4)), method="tsne")
    written = texts(figure_named(data_map, "overview"))
    assert any(f"{count} of 1,000 transitions" in text for text in written)


def test_warnings_about_the_data_are_on_the_overview(make_data_map: MakeMap) -> None:
    data_map = replace(make_data_map(), warnings=("Episode 0 has 768,000 steps, which is a bug in the file.",))
    assert any("768,000 steps" in text for text in texts(figure_named(data_map, "overview")))


def test_long_warnings_are_wrapped_within_the_picture_and_the_others_counted(make_data_map: MakeMap) -> None:
    long = f"{'Not read, although the name suggests a mark of episodes: next_done. ' * 4}"
    data_map = replace(make_data_map(), warnings=(f"{long}First.", f"{long}Second.", f"{long}Third.", "Fourth."))
    figure = figure_named(data_map, "overview")
    written = texts(figure)
    assert " ".join(written).count("next_done") == 8
    assert any(text.endswith("Second.") for text in written)
    assert "2 more warnings" in written
    margin = pixels_of(figure)[:200, -5:]
    assert (margin == 255).all()


@pytest.mark.parametrize(("ratios", "high"), [([1.0, 10.0, 1e5, 1e5, np.inf], 5.0), ([np.inf], 1.0)])
def test_an_infinite_distance_has_the_color_of_the_largest_one(ratios: list[float], high: float) -> None:
    coloring = by_distance(np.array(ratios))
    assert (coloring.high, coloring.values[-1]) == (high, high)


def test_the_policy_is_drawn_over_gray_data_by_distance_and_time(
    make_data_map: MakeMap, rng: np.random.Generator
) -> None:
    states = rng.normal(size=(60, 3))
    data_map = make_data_map(states)
    visited: Any = VisitedStates(
        observations=(states[:40] + np.linspace(0, 30, 40)[:, None]).astype(np.float32),
        episodes=np.repeat([0, 1], 20),
        steps=np.tile(np.arange(20), 2),
        lengths=np.full(40, 20),
    )
    figure = policy_on_data(place(visited, data_map), data_map)
    written = texts(figure)
    assert {"Visited states by distance from the data", "Visited states by time in the episode"} <= set(written)
    assert any("40 states of 2 evaluation episodes on 60 of 1,000 transitions" in text for text in written)
    assert any("ood_ratio" in text for text in written)
    gray = (pixels_of(figure) == np.array([0xCD, 0xD2, 0xD8])).all(axis=2)
    assert gray.sum() > 200
