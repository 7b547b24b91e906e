from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import (
    MAX_SHOWN_ACTIONS,
    BinaryActions,
    ContinuousActions,
    DiscreteActions,
    GroupedActions,
    OtherActions,
)
from rlwandb_callbacks.core.episode import Grouped, Probabilities, QValues
from rlwandb_callbacks.media.panel_content import (
    action_lines,
    allocate_rows,
    bars_of,
    label_groups,
    row_count,
)

MOVE = DiscreteActions(("stay", "go"))
GEAR = DiscreteActions(("3", "4", "5"), first=3)


def choices(*sizes: int) -> GroupedActions:
    return GroupedActions(tuple(DiscreteActions(tuple(map(str, range(size)))) for size in sizes))


def test_each_option_of_each_choice_has_a_row() -> None:
    scores = Grouped((QValues(np.array([1.0, 2.0])), QValues(np.array([0.5, -1.0, 4.0]))))
    rows = bars_of(GroupedActions((MOVE, GEAR)), scores, np.array([0, 5]))
    assert [row.label for row in rows] == ["a[0] stay", "a[0] go", "a[1] 3", "a[1] 4", "a[1] 5"]
    assert [row.value for row in rows] == [1.0, 2.0, 0.5, -1.0, 4.0]
    assert [row.is_chosen for row in rows] == [True, False, False, False, True]
    assert [row.begins_group for row in rows] == [False, False, True, False, False]
    assert row_count(label_groups(GroupedActions((MOVE, GEAR)), scores)) == 5


def test_labels_of_a_single_choice_have_no_index() -> None:
    assert [row.label for row in bars_of(MOVE, None, np.array(1))] == ["stay", "go"]
    assert [row.label for row in bars_of(GroupedActions((GEAR,)), None, np.array([4]))] == ["3", "4", "5"]


def test_a_switch_is_shown_by_the_probability_of_on() -> None:
    scores = Grouped((Probabilities(np.array([0.9, 0.1])), Probabilities(np.array([0.25, 0.75]))))
    rows = bars_of(BinaryActions(("jump", "fire")), scores, np.array([1, 0]))
    assert [(row.label, row.value, row.is_chosen) for row in rows] == [("jump", 0.1, True), ("fire", 0.75, False)]
    assert row_count(label_groups(BinaryActions(("jump", "fire")), scores)) == 2


def test_a_switch_with_q_values_is_shown_by_both() -> None:
    scores = Grouped((QValues(np.array([1.0, 2.0])), QValues(np.array([3.0, 4.0]))))
    rows = bars_of(BinaryActions(("jump", "fire")), scores, np.array([[1], [0]]))
    assert [row.label for row in rows] == ["jump 0", "jump 1", "fire 0", "fire 1"]
    assert [row.is_chosen for row in rows] == [False, True, True, False]
    assert row_count(label_groups(BinaryActions(("jump", "fire")), scores)) == 4


def test_of_many_options_the_chosen_one_and_the_best_of_each_choice_are_shown() -> None:
    values = np.arange(12.0)
    scores = Grouped(tuple(QValues(values) for _ in range(3)))
    rows = bars_of(choices(12, 12, 12), scores, np.array([0, 11, 5]))
    assert len(rows) == MAX_SHOWN_ACTIONS == row_count(label_groups(choices(12, 12, 12), scores))
    shown = [row.label for row in rows]
    assert shown[:6] == [f"a[0] {option}" for option in (0, 7, 8, 9, 10, 11)]
    assert shown[6:12] == [f"a[1] {option}" for option in (6, 7, 8, 9, 10, 11)]
    assert shown[12:] == [f"a[2] {option}" for option in (5, 7, 8, 9, 10, 11)]
    assert [row.label for row in rows if row.is_chosen] == ["a[0] 0", "a[1] 11", "a[2] 5"]


def test_of_many_choices_the_chosen_options_of_the_first_are_shown() -> None:
    scores = Grouped(tuple(QValues(np.arange(4.0)) for _ in range(30)))
    rows = bars_of(choices(*[4] * 30), scores, np.arange(30) % 4)
    assert [row.label for row in rows] == [f"a[{i}] {i % 4}" for i in range(MAX_SHOWN_ACTIONS)]
    assert all(row.is_chosen for row in rows)


@pytest.mark.parametrize(
    ("sizes", "available", "expected"),
    [
        ([2, 2], 18, [2, 2]),
        ([2, 20, 4], 18, [2, 12, 4]),
        ([9, 9, 9], 10, [4, 3, 3]),
        ([3] * 5, 3, [1, 1, 1, 0, 0]),
        ([0, 2], 5, [0, 2]),
        ([], 5, []),
    ],
)
def test_rows_are_allocated_evenly(sizes: list[int], available: int, expected: list[int]) -> None:
    assert allocate_rows(sizes, available) == expected


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (MOVE, 2),
        (choices(40), MAX_SHOWN_ACTIONS),
        (BinaryActions(("a",) * 30), MAX_SHOWN_ACTIONS),
        (ContinuousActions(-np.ones(3), np.ones(3)), 3),
        (ContinuousActions(-np.ones(30), np.ones(30)), MAX_SHOWN_ACTIONS),
        (OtherActions(), 1),
    ],
)
def test_there_are_at_most_18_rows(actions: Any, expected: int) -> None:
    assert row_count(label_groups(actions, None)) == expected


@pytest.mark.parametrize(
    ("actions", "labels"),
    [
        (MOVE, [["stay", "go"]]),
        (GroupedActions((MOVE, GEAR)), [["a[0] stay", "a[0] go"], ["a[1] 3", "a[1] 4", "a[1] 5"]]),
        (choices(40), [[str(i) for i in range(40)]]),
        (BinaryActions(("jump", "fire")), [["jump"], ["fire"]]),
        (ContinuousActions(-np.ones(2), np.ones(2)), [["a[0]"], ["a[1]"]]),
        (ContinuousActions(-np.ones(2), np.ones(2), ("hip", "knee")), [["hip"], ["knee"]]),
        (OtherActions(), []),
    ],
)
def test_labels_by_choice(actions: Any, labels: list[list[str]]) -> None:
    assert label_groups(actions, None) == labels


def test_other_actions_have_one_line_per_part() -> None:
    assert action_lines(np.array([2, 0, 1])) == ["[2 0 1]"]
    assert action_lines((1, np.array([0.25, 0.5]))) == ["1", "[0.25 0.5 ]"]
    assert action_lines({"a": (1, 2), "b": {"c": 3}}) == ["a: 1  2", "b: c: 3"]
    assert action_lines({str(i): i for i in range(18)})[-1] == "17: 17"
    assert action_lines(tuple(range(40))) == [*map(str, range(17)), "23 more not shown"]
    assert len(action_lines({str(i): i for i in range(40)})) == MAX_SHOWN_ACTIONS
