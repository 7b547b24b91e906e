"""The drawn panel is read from its pixels: bars by their color, text by comparison with drawn text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from episodes import with_panel

from rlwandb_callbacks.core.action_spec import (
    MAX_SHOWN_ACTIONS,
    ActionSpec,
    BinaryActions,
    ContinuousActions,
    DiscreteActions,
    GroupedActions,
    OtherActions,
    choices_of,
)
from rlwandb_callbacks.core.episode import Episode, Gaussian, Grouped, Probabilities, QValues
from rlwandb_callbacks.media.drawing import BACKGROUND, BAR, CHOSEN, GRID, MUTED, TEXT, TRACK, Color, text_block
from rlwandb_callbacks.media.panel import Panel
from rlwandb_callbacks.media.panel_layout import Geometry

MakeEpisode = Callable[..., Episode]
HEIGHT = 400
LEFT_RIGHT = DiscreteActions(("left", "right"))


def is_color(picture: np.ndarray, color: Color) -> np.ndarray:
    return (picture == color).all(axis=-1)


def bar(
    panel: np.ndarray, row: int, rows: int, color: Color, value_fraction: float = 0.25
) -> tuple[float, float] | None:
    """Returns both ends of a row's bar as fractions of its track; None if it has no bar of that color."""
    at = Geometry(panel.shape[0], rows, value_fraction)
    strip = panel[at.row_center(row) - at.bar_half : at.row_center(row) + at.bar_half + 1, at.bar_left : at.bar_right]
    columns = np.nonzero(is_color(strip, color).all(axis=0))[0]
    if not columns.size:
        return None
    return float(columns.min() / strip.shape[1]), float((columns.max() + 1) / strip.shape[1])


def length(panel: np.ndarray, row: int, rows: int, color: Color) -> float:
    left, right = bar(panel, row, rows, color)
    return right - left


def shows(panel: np.ndarray, text: str, size: int, color: Color = TEXT) -> bool:
    """Returns whether a panel has a text."""
    block = text_block(text, size, color)
    height, width = block.shape[:2]
    middle = block[height // 2].ravel()
    lines = np.lib.stride_tricks.sliding_window_view(panel.reshape(panel.shape[0], -1), middle.size, axis=1)[:, ::3]
    for y, x in zip(*np.nonzero((lines == middle).all(axis=-1)), strict=True):
        top = y - height // 2
        if top >= 0 and np.array_equal(panel[top : top + height, x : x + width], block):
            return True
    return False


def panel_of(episode: Episode, actions: ActionSpec, step: int = 0) -> np.ndarray:
    return Panel(episode, actions, HEIGHT).draw(step)


def test_the_panel_is_to_the_right_of_the_frame_and_does_not_cover_it(make_episode: MakeEpisode) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 90, 70, 3), dtype=np.uint8)
    scores = QValues(np.array([[1.0, 2.0], [2.0, 1.0]]))
    pictures = with_panel(frames, make_episode(scores=scores), LEFT_RIGHT)
    assert len(pictures) == 3
    assert len({picture.shape for picture in pictures}) == 1
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.array_equal(picture[:, : 3 * 70], frame.repeat(3, axis=0).repeat(3, axis=1))
        assert picture.shape[0] == 3 * 90
        assert picture.shape[1] > 3 * 70 + 200
        assert (picture[:, 3 * 70] == BACKGROUND).all()


def test_the_row_of_the_chosen_action_is_marked(make_episode: MakeEpisode) -> None:
    scores = QValues(np.array([[3.0, 1.0, 2.0]] * 3))
    episode = make_episode([0.0] * 3, actions=np.array([0, 2, 1]), scores=scores)
    actions = DiscreteActions(("noop", "fire", "jump"))
    for step, chosen in enumerate([0, 2, 1]):
        panel = panel_of(episode, actions, step)
        assert [bar(panel, row, 3, CHOSEN) is not None for row in range(3)] == [row == chosen for row in range(3)]
        assert [bar(panel, row, 3, BAR) is not None for row in range(3)] == [row != chosen for row in range(3)]
        at = Geometry(HEIGHT, 3, 0.25)
        marked = [is_color(panel[at.row_center(row), : 2 * at.margin], CHOSEN).any() for row in range(3)]
        assert marked == [row == chosen for row in range(3)], "a pointer is in front of its name"
        names = [shows(panel, name, at.row_text_size, CHOSEN) for name in actions.names]
        assert names == [row == chosen for row in range(3)]


def test_lengths_of_bars_are_proportional_to_q_values(make_episode: MakeEpisode) -> None:
    episode = make_episode([0.0], actions=np.array([1]), scores=QValues(np.array([[1.0, 2.0, 4.0]])))
    panel = panel_of(episode, DiscreteActions(("a", "b", "c")))
    lengths = [length(panel, 0, 3, BAR), length(panel, 1, 3, CHOSEN), length(panel, 2, 3, BAR)]
    assert lengths == pytest.approx([0.25, 0.5, 1.0], abs=0.02)


def test_a_q_value_draws_the_same_bar_in_every_frame(make_episode: MakeEpisode) -> None:
    scores = QValues(np.array([[1.0, 8.0], [1.0, 0.5], [1.0, -8.0]]))
    episode = make_episode([0.0] * 3, actions=np.array([1, 1, 1]), scores=scores)
    bars = [bar(panel_of(episode, LEFT_RIGHT, step), 0, 2, BAR) for step in range(3)]
    assert bars[0] == bars[1] == bars[2]
    assert bars[0][1] - bars[0][0] == pytest.approx(1 / 16, abs=0.02)


def test_negative_q_values_go_left_of_zero_and_positive_ones_right(make_episode: MakeEpisode) -> None:
    scores = QValues(np.array([[-1.0, 3.0], [2.0, -0.5]]))
    episode = make_episode(actions=np.array([0, 0]), scores=scores)
    first, second = (panel_of(episode, LEFT_RIGHT, step) for step in (0, 1))
    assert bar(first, 0, 2, CHOSEN) == pytest.approx((0.0, 0.25), abs=0.02)
    assert bar(first, 1, 2, BAR) == pytest.approx((0.25, 1.0), abs=0.02)
    assert bar(second, 0, 2, CHOSEN) == pytest.approx((0.25, 0.75), abs=0.02)
    assert bar(second, 1, 2, BAR) == pytest.approx((0.125, 0.25), abs=0.02)
    for panel in (first, second):
        assert bar(panel, 0, 2, GRID)[0] == pytest.approx(0.25, abs=0.02), "a line marks zero"


def test_bars_of_negative_q_values_start_at_the_low_end_of_the_axis(make_episode: MakeEpisode) -> None:
    scores = QValues(np.array([[-4.0, -3.0, -1.0]]))
    panel = panel_of(make_episode([0.0], actions=np.array([2]), scores=scores), DiscreteActions(("a", "b", "c")))
    assert bar(panel, 0, 3, BAR) is None
    assert bar(panel, 1, 3, BAR) == pytest.approx((0.0, 0.25), abs=0.02)
    assert bar(panel, 2, 3, CHOSEN) == pytest.approx((0.0, 0.75), abs=0.02)


@pytest.mark.parametrize(
    "values", [(-9.0, -4.0, -0.1), (-100.0, -99.0, -98.5), (1.0, 2.0, 8.0), (50.0, 51.0, 52.0), (-3.0, -1.0, 0.0)]
)
def test_of_q_values_with_one_sign_the_better_action_has_the_longer_bar(
    make_episode: MakeEpisode, values: tuple[float, ...]
) -> None:
    scores = QValues(np.array([values]))
    panel = panel_of(make_episode([0.0], actions=np.array([0]), scores=scores), DiscreteActions(("a", "b", "c")))
    found = [bar(panel, row, 3, BAR if row else CHOSEN) or (0.0, 0.0) for row in range(3)]
    assert found[0][1] < found[1][1] < found[2][1]
    assert [left for left, _ in found] == [0.0] * 3


def test_q_values_that_are_not_finite_have_no_bar_and_are_written(make_episode: MakeEpisode) -> None:
    scores = QValues(np.array([[math.nan, math.inf, 2.0]]))
    panel = panel_of(make_episode([0.0], actions=np.array([2]), scores=scores), DiscreteActions(("a", "b", "c")))
    assert bar(panel, 0, 3, BAR) is None
    assert bar(panel, 1, 3, BAR) is None
    assert bar(panel, 2, 3, CHOSEN) is not None
    size = Geometry(HEIGHT, 3, 0.25).row_text_size
    assert shows(panel, "nan", size)
    assert shows(panel, "inf", size)


def test_probabilities_are_drawn_between_zero_and_one(make_episode: MakeEpisode) -> None:
    scores = Probabilities(np.array([[0.25, 0.75], [0.1, 0.9]]))
    episode = make_episode(actions=np.array([1, 1]), scores=scores)
    for step, (left, right) in enumerate([(0.25, 0.75), (0.1, 0.9)]):
        panel = panel_of(episode, LEFT_RIGHT, step)
        assert bar(panel, 0, 2, BAR) == pytest.approx((0.0, left), abs=0.02)
        assert bar(panel, 1, 2, CHOSEN) == pytest.approx((0.0, right), abs=0.02)


def test_small_probabilities_do_not_fill_the_axis(make_episode: MakeEpisode) -> None:
    episode = make_episode([0.0], actions=np.array([0]), scores=Probabilities(np.array([[0.02, 0.01]])))
    assert length(panel_of(episode, LEFT_RIGHT), 0, 2, CHOSEN) < 0.05


@pytest.mark.parametrize(
    ("scores", "title"),
    [
        (QValues(np.ones((2, 2))), "q-values"),
        (Probabilities(np.full((2, 2), 0.5)), "action probabilities"),
        (Probabilities(np.full((2, 2), 0.5), "softmax of q-values"), "softmax of q-values"),
        (None, "actions"),
    ],
)
def test_the_title_names_the_scores(make_episode: MakeEpisode, scores: Any, title: str) -> None:
    at = Geometry(HEIGHT, 2, 0.25)
    assert shows(panel_of(make_episode(scores=scores), LEFT_RIGHT), title, at.text_size)


def test_step_reward_return_and_value_are_on_the_panel(make_episode: MakeEpisode) -> None:
    episode = make_episode([1.5, -3.0], values=np.array([12.5, 7.25]), scores=QValues(np.ones((2, 2))))
    size = Geometry(HEIGHT, 2, 0.25).text_size
    expected = [
        ["step 0", "reward -", "return 0", "V(s) 12.50"],
        ["step 1", "reward +1.5", "return 1.50", "V(s) 7.25"],
        ["step 2", "reward -3", "return -1.50"],
    ]
    for step, texts in enumerate(expected):
        panel = panel_of(episode, LEFT_RIGHT, step)
        assert [text for text in texts if not shows(panel, text, size)] == []
    assert not shows(panel, "V(s)", size), "the last state has no value"


@pytest.mark.parametrize("reward", [-0.0001201, -0.0018881, 12345.6, -1e-310, -1e300])
def test_rewards_fit_on_the_panel(make_episode: MakeEpisode, reward: float) -> None:
    panel = panel_of(make_episode([reward, 0.0]), LEFT_RIGHT, 1)
    at = Geometry(HEIGHT, 2, 0.25)
    line = slice(at.margin + at.line, at.margin + 2 * at.line)
    assert is_color(panel[line, at.width // 2 :], TEXT).any()
    assert is_color(panel[line, -at.margin // 3 :], BACKGROUND).all()


def test_q_of_a_continuous_action_is_on_the_panel(make_episode: MakeEpisode) -> None:
    episode = make_episode([0.0], actions=np.zeros((1, 1)), chosen_q=np.array([-3.25]))
    panel = panel_of(episode, ContinuousActions(-np.ones(1), np.ones(1)))
    assert shows(panel, "Q(s,a) -3.25", Geometry(HEIGHT, 1, 0.25).text_size)


def test_names_and_values_are_beside_the_bars(make_episode: MakeEpisode) -> None:
    episode = make_episode([0.0], actions=np.array([1]), scores=QValues(np.array([[-0.5, 12.25]])))
    panel = panel_of(episode, LEFT_RIGHT)
    size = Geometry(HEIGHT, 2, 0.25).row_text_size
    assert shows(panel, "left", size, TEXT)
    assert shows(panel, "right", size, CHOSEN)
    assert shows(panel, "-0.500", size, TEXT)
    assert shows(panel, "12.25", size, CHOSEN)


@pytest.mark.parametrize("count", [19, 40])
def test_of_many_actions_the_chosen_one_and_the_best_17_others_are_shown(make_episode: MakeEpisode, count: int) -> None:
    values = np.arange(1.0, count + 1)
    names = tuple(f"action {index:02d}" for index in range(count))
    episode = make_episode([0.0], actions=np.array([0]), scores=QValues(values[None]))
    panel = panel_of(episode, DiscreteActions(names))
    size = Geometry(HEIGHT, MAX_SHOWN_ACTIONS, 0.25).row_text_size
    shown = [index for index in range(count) if shows(panel, names[index], size, TEXT if index else CHOSEN)]
    assert shown == [0, *range(count - 17, count)]
    assert bar(panel, 0, MAX_SHOWN_ACTIONS, CHOSEN) == pytest.approx((0.0, 1 / count), abs=0.02)
    bars = [length(panel, row, MAX_SHOWN_ACTIONS, BAR) for row in range(1, MAX_SHOWN_ACTIONS)]
    assert bars == pytest.approx([values[index] / count for index in shown[1:]], abs=0.02)


def test_of_many_actions_the_chosen_one_is_shown_once_when_it_is_the_best(make_episode: MakeEpisode) -> None:
    names = tuple(map(str, range(100, 130)))
    scores = QValues(np.arange(30.0)[None])
    panel = panel_of(make_episode([0.0], actions=np.array([29]), scores=scores), DiscreteActions(names))
    size = Geometry(HEIGHT, MAX_SHOWN_ACTIONS, 0.25).row_text_size
    assert [name for name in names if shows(panel, name, size, TEXT)] == list(names[12:29])
    assert shows(panel, "129", size, CHOSEN)


def test_eighteen_actions_are_all_shown_in_their_order(make_episode: MakeEpisode) -> None:
    scores = QValues(np.arange(18.0, 0.0, -1.0)[None])
    names = tuple(map(str, range(18)))
    panel = panel_of(make_episode([0.0], actions=np.array([4]), scores=scores), DiscreteActions(names))
    bars = [length(panel, row, 18, CHOSEN if row == 4 else BAR) for row in range(18)]
    assert bars == pytest.approx([value / 18 for value in range(18, 0, -1)], abs=0.02)


def test_actions_may_be_counted_from_another_number_than_zero(make_episode: MakeEpisode) -> None:
    episode = make_episode([0.0], actions=np.array([6]), scores=QValues(np.array([[1.0, 2.0]])))
    panel = panel_of(episode, DiscreteActions(("five", "six"), first=5))
    assert bar(panel, 0, 2, CHOSEN) is None
    assert bar(panel, 1, 2, CHOSEN) is not None


def test_without_scores_only_the_chosen_action_is_filled(make_episode: MakeEpisode) -> None:
    panel = panel_of(make_episode(actions=np.array([1, 0])), LEFT_RIGHT)
    assert bar(panel, 0, 2, CHOSEN) is None
    assert bar(panel, 1, 2, CHOSEN) == pytest.approx((0.0, 1.0), abs=0.01)
    assert bar(panel, 0, 2, BAR) is None


@pytest.mark.parametrize(
    ("actions", "spec", "scores"),
    [
        (np.array([0, 1]), LEFT_RIGHT, QValues(np.ones((2, 2)))),
        (np.array([0, 1]), LEFT_RIGHT, Probabilities(np.full((2, 2), 0.5))),
        (np.zeros((2, 1)), ContinuousActions(-np.ones(1), np.ones(1)), Gaussian(np.zeros((2, 1)), np.ones((2, 1)))),
        (np.zeros((2, 3), int), OtherActions(), None),
    ],
)
def test_the_last_state_has_no_bars_and_names_the_ending(
    make_episode: MakeEpisode, actions: np.ndarray, spec: ActionSpec, scores: Any
) -> None:
    value_fraction = 0.35 if isinstance(scores, Gaussian) else 0.25
    episode = make_episode(actions=actions, scores=scores, values=np.zeros(2))
    panel = panel_of(episode, spec, 2)
    at = Geometry(HEIGHT, 2, value_fraction)
    track = panel[at.top :, at.bar_left : at.bar_right]
    assert not is_color(track, BAR).any()
    assert all(bar(panel, row, 2, CHOSEN, value_fraction) is None for row in range(2))
    assert shows(panel, "terminated", at.text_size, CHOSEN)
    assert shows(panel, "step 2", at.text_size)


def gaussian(mean: list[float], std: list[float]) -> Gaussian:
    return Gaussian(np.array([mean]), np.array([std]))


def test_a_gaussian_is_drawn_as_mean_and_std_within_the_bounds_and_the_action_is_marked(
    make_episode: MakeEpisode,
) -> None:
    actions = np.array([[0.5, -2.0]])
    episode = make_episode([0.0], actions=actions, scores=gaussian([0.0, -1.0], [0.25, 1.0]))
    panel = panel_of(episode, ContinuousActions(np.array([-1.0, -2.0]), np.array([1.0, 2.0])))
    assert bar(panel, 0, 2, BAR, 0.35) == pytest.approx((0.375, 0.625), abs=0.02)
    assert bar(panel, 0, 2, TEXT, 0.35) == pytest.approx((0.5, 0.5), abs=0.03)
    assert bar(panel, 0, 2, CHOSEN, 0.35) == pytest.approx((0.75, 0.75), abs=0.03)
    assert bar(panel, 1, 2, BAR, 0.35) == pytest.approx((0.0, 0.5), abs=0.03)
    assert bar(panel, 1, 2, TEXT, 0.35) == pytest.approx((0.25, 0.25), abs=0.03)
    assert bar(panel, 1, 2, CHOSEN, 0.35) == pytest.approx((0.0, 0.0), abs=0.03)
    at = Geometry(HEIGHT, 2, 0.35)
    assert shows(panel, "policy: mean ± std", at.text_size)
    assert shows(panel, "a[1]", at.row_text_size)


def test_values_outside_the_bounds_are_clipped_to_the_track(make_episode: MakeEpisode) -> None:
    episode = make_episode([0.0], actions=np.array([[5.0]]), scores=gaussian([9.0], [0.5]))
    bounds = ContinuousActions(np.array([-1.0]), np.array([1.0]))
    panel = panel_of(episode, bounds)
    assert bar(panel, 0, 1, BAR, 0.35) is None
    assert bar(panel, 0, 1, CHOSEN, 0.35)[1] == 1.0
    at = Geometry(HEIGHT, 1, 0.35)
    beyond = panel[at.row_center(0) - at.bar_half : at.row_center(0) + at.bar_half, at.bar_right + 3 :]
    assert not is_color(beyond, CHOSEN).any()


def test_a_continuous_action_without_scores_is_a_mark_on_its_track(make_episode: MakeEpisode) -> None:
    panel = panel_of(
        make_episode([0.0], actions=np.array([[0.0]])), ContinuousActions(np.array([-1.0]), np.array([3.0]))
    )
    assert bar(panel, 0, 1, CHOSEN) == pytest.approx((0.25, 0.25), abs=0.03)
    assert bar(panel, 0, 1, BAR) is None
    assert bar(panel, 0, 1, TRACK) == (0.0, 1.0)


def test_entries_of_matrix_actions_have_one_row_each(make_episode: MakeEpisode) -> None:
    spec = ContinuousActions(-np.ones(4), np.ones(4))
    actions = np.array([[[-1.0, 0.0], [0.5, 1.0]]])
    panel = panel_of(make_episode([0.0], actions=actions), spec)
    assert [sum(bar(panel, row, 4, CHOSEN)) / 2 for row in range(4)] == pytest.approx([0.0, 0.5, 0.75, 1.0], abs=0.03)


def test_of_too_many_dimensions_the_first_are_shown(make_episode: MakeEpisode) -> None:
    spec = ContinuousActions(-np.ones(30), np.ones(30))
    panel = panel_of(make_episode([0.0], actions=np.linspace(-1, 1, 30)[None]), spec)
    marks = [sum(bar(panel, row, MAX_SHOWN_ACTIONS, CHOSEN)) / 2 for row in range(MAX_SHOWN_ACTIONS)]
    assert marks == pytest.approx(np.linspace(0, 1, 30)[:MAX_SHOWN_ACTIONS].tolist(), abs=0.04)


@pytest.mark.parametrize(
    ("spec", "left_out"),
    [
        (ContinuousActions(-np.ones(18), np.ones(18)), None),
        (ContinuousActions(-np.ones(26), np.ones(26)), 8),
        (DiscreteActions(tuple(map(str, range(1000)))), 982),
        (GroupedActions((DiscreteActions(("a", "b", "c")),) * 10), 12),
        (BinaryActions(tuple(map(str, range(19)))), 1),
    ],
)
def test_the_panel_says_how_many_rows_are_left_out(
    make_episode: MakeEpisode, spec: ActionSpec, left_out: int | None
) -> None:
    size = spec.low.size if isinstance(spec, ContinuousActions) else len(choices_of(spec))
    panel = panel_of(make_episode([0.0], actions=np.zeros((1, size), np.int64)), spec)
    counts = [n for n in (1, 8, 12, 982) if any(shows(panel, f"{n} more not shown", px, MUTED) for px in range(8, 16))]
    assert counts == ([] if left_out is None else [left_out])


def test_actions_of_other_spaces_are_written(make_episode: MakeEpisode) -> None:
    panel = panel_of(make_episode([0.0], actions=np.array([[2, 0, 1]])), OtherActions())
    at = Geometry(HEIGHT, 1, 0.25)
    assert shows(panel, "[2 0 1]", at.text_size, CHOSEN)
    assert not is_color(panel, TRACK).any()


@pytest.mark.parametrize(
    ("actions", "spec", "scores"),
    [
        (np.array([0, 1]), DiscreteActions(("", "b")), None),
        (np.array([0, 1]), LEFT_RIGHT, QValues(np.array([[-1e300, 1e300], [1.0, 2.0]]))),
        (np.array([0, 1]), LEFT_RIGHT, QValues(np.full((2, 2), math.nan))),
        (np.array([[0], [1]]), LEFT_RIGHT, QValues(np.ones((2, 2)))),
        (np.array([0, 0]), DiscreteActions(("only",)), Probabilities(np.ones((2, 1)))),
        (np.zeros((2, 1)), ContinuousActions(np.full(1, -np.inf), np.full(1, np.inf)), None),
        (
            np.zeros((2, 1)),
            ContinuousActions(np.full(1, -np.inf), np.full(1, np.inf)),
            Gaussian(np.zeros((2, 1)), np.full((2, 1), np.inf)),
        ),
        (np.full((2, 1), np.nan), ContinuousActions(-np.ones(1), np.ones(1)), None),
        (np.zeros((2, 1)), ContinuousActions(np.full(1, -3.4e38), np.full(1, 3.4e38)), None),
        (
            np.zeros((2, 1)),
            ContinuousActions(-np.ones(1), np.ones(1)),
            Gaussian(np.full((2, 1), 1e38), np.full((2, 1), 1e38)),
        ),
        (np.zeros((2, 9, 9)), OtherActions(), None),
    ],
    ids=[
        "name empty",
        "q-values huge",
        "q-values nan",
        "discrete in a column",
        "one action",
        "unbounded",
        "std infinite",
        "action nan",
        "bounds of float32",
        "mean huge",
        "action a matrix",
    ],
)
def test_the_size_of_the_panel_does_not_depend_on_the_values(
    make_episode: MakeEpisode, actions: np.ndarray, spec: ActionSpec, scores: Any
) -> None:
    panel = Panel(make_episode(actions=actions, scores=scores), spec, HEIGHT)
    assert {panel.draw(step).shape for step in range(3)} == {(HEIGHT, 320, 3)}


def test_each_choice_has_a_group_of_bars_between_lines(make_episode: MakeEpisode) -> None:
    groups = (Probabilities(np.array([[0.25, 0.75]])), Probabilities(np.array([[0.5, 0.4, 0.1]])))
    actions = GroupedActions((DiscreteActions(("stay", "go")), DiscreteActions(("5", "6", "7"), first=5)))
    panel = panel_of(make_episode([0.0], actions=np.array([[1, 5]]), scores=Grouped(groups)), actions)
    expected = [(0.25, BAR), (0.75, CHOSEN), (0.5, CHOSEN), (0.4, BAR), (0.1, BAR)]
    for row, (probability, color) in enumerate(expected):
        assert bar(panel, row, 5, color) == pytest.approx((0.0, probability), abs=0.02)
    at = Geometry(HEIGHT, 5, 0.25)
    lines = [row for row in range(5) if is_color(panel[at.row_center(row) - at.pitch // 2, at.margin + 1], GRID)]
    assert lines == [2]
    assert shows(panel, "a[0] go", at.row_text_size, CHOSEN)
    assert shows(panel, "a[1] 7", at.row_text_size)
    assert shows(panel, "action probabilities", at.text_size)


def test_lines_between_choices_are_complete_in_crowded_rows(make_episode: MakeEpisode) -> None:
    choice = DiscreteActions(tuple("01234"))
    scores = Grouped((Probabilities(np.full((1, 5), 0.2)),) * 3)
    episode = make_episode([0.0], actions=np.array([[1, 2, 3]]), scores=scores)
    panel = Panel(episode, GroupedActions((choice,) * 3), 300).draw(0)
    at = Geometry(300, 15, 0.25)
    for row in (5, 10):
        line = panel[at.row_center(row) - at.pitch // 2, at.margin : at.width - at.margin]
        assert is_color(line, GRID).all()


def test_q_values_of_all_choices_share_one_axis(make_episode: MakeEpisode) -> None:
    groups = (QValues(np.array([[1.0, 2.0]])), QValues(np.array([[4.0, 8.0]])))
    actions = GroupedActions((DiscreteActions(("0", "1")),) * 2)
    panel = panel_of(make_episode([0.0], actions=np.array([[1, 1]]), scores=Grouped(groups)), actions)
    lengths = [length(panel, row, 4, CHOSEN if row % 2 else BAR) for row in range(4)]
    assert lengths == pytest.approx([1 / 8, 1 / 4, 1 / 2, 1.0], abs=0.02)
    assert shows(panel, "q-values", Geometry(HEIGHT, 4, 0.25).text_size)


def test_each_switch_has_a_bar_and_is_marked_if_it_is_on(make_episode: MakeEpisode) -> None:
    groups = tuple(Probabilities(np.array([[1 - on, on]])) for on in (0.9, 0.2, 0.6))
    episode = make_episode([0.0], actions=np.array([[1, 0, 1]]), scores=Grouped(groups))
    panel = panel_of(episode, BinaryActions(("jump", "fire", "duck")))
    for row, (probability, color) in enumerate([(0.9, CHOSEN), (0.2, BAR), (0.6, CHOSEN)]):
        assert bar(panel, row, 3, color) == pytest.approx((0.0, probability), abs=0.02)
    at = Geometry(HEIGHT, 3, 0.25)
    assert shows(panel, "probability of on", at.text_size)
    assert [shows(panel, name, at.row_text_size, CHOSEN) for name in ("jump", "fire", "duck")] == [True, False, True]


def test_each_part_of_a_dict_is_written_on_its_own_line(make_episode: MakeEpisode) -> None:
    actions = np.empty(1, dtype=object)
    actions[0] = {"steer": np.array([0.5]), "gear": 2}
    panel = panel_of(make_episode([0.0], actions=actions), OtherActions())
    at = Geometry(HEIGHT, 2, 0.25)
    assert shows(panel, "steer: [0.5]", at.row_text_size, CHOSEN)
    assert shows(panel, "gear: 2", at.row_text_size, CHOSEN)


ATARI = DiscreteActions(
    (
        *("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT", "UPFIRE"),
        *("RIGHTFIRE", "LEFTFIRE", "DOWNFIRE", "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE"),
    )
)


def sizes_of(panel: np.ndarray, text: str, color: Color = TEXT) -> list[int]:
    """Returns the sizes of a text on a panel."""
    return [size for size in range(8, 22) if shows(panel, text, size, color)]


@pytest.mark.parametrize(("shape", "factor"), [((96, 128), 3), ((210, 160), 2), ((87, 64), 3)])
def test_many_rows_beside_a_small_frame_are_legible_and_the_frame_is_centered(
    shape: tuple[int, int], factor: int, make_episode: MakeEpisode
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    scores = QValues(np.array([np.arange(18.0), np.arange(18.0)[::-1]]))
    pictures = with_panel(frames, make_episode(actions=np.array([17, 0]), scores=scores), ATARI)
    assert len({picture.shape for picture in pictures}) == 1
    height, width = factor * shape[0], factor * shape[1]
    above = (pictures[0].shape[0] - height) // 2
    assert above > 0
    for frame, picture in zip(frames, pictures, strict=True):
        whole = frame.repeat(factor, axis=0).repeat(factor, axis=1)
        assert np.array_equal(picture[above:-above, :width], whole)
        assert (picture[:above, :width] == BACKGROUND).all()
        assert (picture[-above:, :width] == BACKGROUND).all()
    shown = [sizes_of(pictures[0][:, width:], name) for name in ATARI.names[:17]]
    assert all(sizes and min(sizes) >= 11 for sizes in shown), "no name is cut"
    assert min(shown[0]) >= 13


@pytest.mark.parametrize("height", [256, 420])
def test_names_of_pong_are_complete_and_of_one_size(height: int, make_episode: MakeEpisode) -> None:
    names = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    episode = make_episode([0.0], actions=np.array([0]), scores=QValues(np.ones((1, 6))))
    panel = Panel(episode, DiscreteActions(names), height).draw(0)
    size = Geometry(height, 6, 0.25).row_text_size
    assert all(shows(panel, name, size, TEXT if index else CHOSEN) for index, name in enumerate(names))


def test_descenders_of_names_are_complete_in_crowded_rows(make_episode: MakeEpisode) -> None:
    names = tuple(f"lift_{letter}" for letter in "abcdefghijklmnopqr")
    panel = Panel(make_episode([0.0], actions=np.array([0])), DiscreteActions(names), 300).draw(0)
    assert all(sizes_of(panel, name) for name in names[1:])


def test_zero_has_no_sign(make_episode: MakeEpisode) -> None:
    episode = make_episode([0.0], actions=np.zeros((1, 1)), scores=gaussian([-0.001], [0.2]))
    panel = panel_of(episode, ContinuousActions(-np.ones(1), np.ones(1)))
    assert sizes_of(panel, "0.00 ±0.20")
    assert not sizes_of(panel, "-0.00 ±0.20")


@pytest.mark.parametrize(("height", "dimensions"), [(256, 3), (288, 6), (400, 4), (480, 17)])
def test_bounds_are_below_the_bars(height: int, dimensions: int, make_episode: MakeEpisode) -> None:
    bounds = ContinuousActions(np.full(dimensions, -0.4), np.full(dimensions, 0.4))
    panel = Panel(make_episode([0.0], actions=np.zeros((1, dimensions))), bounds, height).draw(0)
    assert sizes_of(panel, "-0.400", MUTED)
    assert sizes_of(panel, "0.400", MUTED)


def test_bounds_that_differ_are_left_out_in_crowded_rows(make_episode: MakeEpisode) -> None:
    highs = np.arange(1.0, 18.0)
    panel = panel_of(make_episode([0.0], actions=np.zeros((1, 17))), ContinuousActions(-highs, highs))
    assert not is_color(panel, MUTED).any()
