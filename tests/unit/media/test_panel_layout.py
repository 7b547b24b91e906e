from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import ContinuousActions
from rlwandb_callbacks.core.episode import Episode, Gaussian
from rlwandb_callbacks.media.drawing import TEXT_HEIGHT
from rlwandb_callbacks.media.panel_layout import Geometry, axis_of_actions, axis_of_q_values, legible_height

MakeEpisode = Callable[..., Episode]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 4.0], (0.0, 4.0)),
        ([-3.0, 1.0], (-3.0, 1.0)),
        ([-4.0, -1.0], (-4.0, 0.0)),
        ([0.0, 2.0], (0.0, 2.0)),
        ([90.0, 100.0], (89.0, 101.0)),
        ([-100.0, -90.0], (-101.0, -89.0)),
        ([5.0, 5.0], (0.0, 5.0)),
        ([-5.0], (-5.0, 0.0)),
        ([0.0, 0.0], (-1.0, 1.0)),
        ([math.nan, 2.0, math.inf, 8.0], (0.0, 8.0)),
        ([math.nan], (0.0, 1.0)),
        ([], (0.0, 1.0)),
    ],
)
def test_axis_of_q_values_by_hand(values: list[float], expected: tuple[float, float]) -> None:
    assert axis_of_q_values(np.array(values)) == pytest.approx(expected)


def test_axis_of_q_values_includes_all_values_and_zero_unless_that_hides_their_differences() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = rng.normal(rng.normal() * 10, rng.exponential(), size=rng.integers(1, 8))
        low, high = axis_of_q_values(values)
        assert low < high
        assert low <= values.min() <= values.max() <= high
        if not low <= 0 <= high:
            assert np.abs(values).min() >= 0.5 * np.abs(values).max()


def box(low: list[float], high: list[float]) -> ContinuousActions:
    return ContinuousActions(np.array(low), np.array(high))


def test_axis_of_actions_is_their_bounds(make_episode: MakeEpisode) -> None:
    episode = make_episode(actions=np.array([[0.5, 0.5], [9.0, 9.0]]))
    lows, highs = axis_of_actions(box([-1.0, -2.0], [1.0, 2.0]), episode)
    assert (lows.tolist(), highs.tolist()) == ([-1.0, -2.0], [1.0, 2.0])


def test_an_unbounded_side_ends_at_the_range_of_the_episode(make_episode: MakeEpisode) -> None:
    episode = make_episode(actions=np.array([[-3.0, 0.5], [5.0, 0.25]]))
    lows, highs = axis_of_actions(box([-math.inf, 0.0], [math.inf, math.inf]), episode)
    assert (lows.tolist(), highs.tolist()) == ([-3.0, 0.0], [5.0, 0.5])


def test_an_unbounded_axis_has_room_for_two_standard_deviations(make_episode: MakeEpisode) -> None:
    scores = Gaussian(np.array([[0.0], [1.0]]), np.array([[2.0], [0.5]]))
    episode = make_episode(actions=np.array([[0.0], [3.0]]), scores=scores)
    lows, highs = axis_of_actions(box([-math.inf], [math.inf]), episode)
    assert (lows.tolist(), highs.tolist()) == ([-4.0], [4.0])


@pytest.mark.parametrize(
    "changed",
    [
        {"actions": np.full((2, 1), 3.0)},
        {"actions": np.full((2, 1), math.nan)},
        {"scores": Gaussian(np.zeros((2, 1)), np.full((2, 1), math.inf))},
        {"scores": Gaussian(np.zeros((2, 1)), np.full((2, 1), math.nan))},
        {"scores": Gaussian(np.full((2, 1), math.nan), np.ones((2, 1)))},
    ],
    ids=["constant action", "action nan", "std inf", "std nan", "mean nan"],
)
def test_an_unbounded_axis_is_finite_and_ascending_for_any_policy(
    make_episode: MakeEpisode, changed: dict[str, Any]
) -> None:
    episode = make_episode(**{"actions": np.array([[0.0], [1.0]]), **changed})
    lows, highs = axis_of_actions(box([-math.inf], [math.inf]), episode)
    assert np.isfinite([lows, highs]).all()
    assert (lows < highs).all()


@pytest.mark.parametrize("rows", [1, 2, 4, 9, 18])
@pytest.mark.parametrize("height", [256, 400, 420, 512, 720, 1080])
def test_everything_fits_on_the_panel_and_rows_do_not_touch(height: int, rows: int) -> None:
    at = Geometry(height, rows, 0.25)
    assert at.row_center(0) - at.pitch // 2 >= at.margin + 3 * at.line, "title and numbers are above the rows"
    assert at.row_center(rows - 1) + at.pitch // 2 + at.line <= height, "the axis is below them"
    assert 2 * at.bar_half + 1 < at.pitch
    assert round(TEXT_HEIGHT * at.row_text_size) <= at.pitch
    assert 0 < at.margin < at.bar_left < at.bar_right < at.width


@pytest.mark.parametrize("rows", [0, 1, 2, 6, 9, 12, 18])
@pytest.mark.parametrize("min_height", [256, 257, 288, 400, 420, 480, 720])
def test_a_panel_is_high_enough_for_legible_rows(min_height: int, rows: int) -> None:
    height = legible_height(min_height, rows)
    assert Geometry(height, rows, 0.25).row_text_size >= (13 if min_height < 280 else 14 if min_height < 300 else 15)
    assert (height - min_height) % 2 == 0
    assert height >= min_height
    assert (height == min_height) == (rows <= 9 or min_height >= 480 or (rows, min_height) in {(12, 400), (12, 420)})


def test_labels_widen_until_bars_have_a_quarter_of_the_panel() -> None:
    at = Geometry(420, 6, 0.25)
    assert at.with_room_for_labels(at.label_width).bar_left == at.bar_left
    wider = at.with_room_for_labels(at.label_width + 20)
    assert wider.label_width == at.label_width + 20
    widest = at.with_room_for_labels(1_000)
    assert widest.bar_right - widest.bar_left == pytest.approx(widest.width / 4, abs=1)


def test_x_is_clipped_to_the_ends_of_the_axis() -> None:
    at = Geometry(256, 2, 0.25)
    assert at.x(-1.0, -1.0, 3.0) == at.x(-50.0, -1.0, 3.0) == at.x(math.nan, -1.0, 3.0) == at.bar_left
    assert at.x(3.0, -1.0, 3.0) == at.x(1e300, -1.0, 3.0) == at.bar_right
    assert at.x(1.0, -1.0, 3.0) == pytest.approx((at.bar_left + at.bar_right) / 2, abs=1)
