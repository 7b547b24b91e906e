from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import ActionSpec, ContinuousActions, DiscreteActions
from rlwandb_callbacks.datasets.infer_actions import MAX_DISCRETE, infer_actions


def inferred(actions: Any, declared: ActionSpec | None = None, blocks: int = 3) -> tuple[Any, Any]:
    array = np.asarray(actions)
    decoder = infer_actions(array.shape, lambda: np.array_split(array, blocks), declared)
    return decoder.spec, decoder.decode(array)


@pytest.mark.parametrize(
    ("actions", "names", "first", "expected"),
    [
        ([0, 2, 1], "012", 0, [0, 2, 1]),
        ([[0], [2], [1]], "012", 0, [0, 2, 1]),
        ([[0.0], [2.0], [1.0]], "012", 0, [0, 2, 1]),
        (np.array([1, 1, 3], np.uint8), "0123", 0, [1, 1, 3]),
        ([True, False], "01", 0, [1, 0]),
        ([-1, 0, 1], ("-1", "0", "1"), -1, [-1, 0, 1]),
        ([[0, 0, 1], [1, 0, 0]], "012", 0, [2, 0]),
        ([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], "01", 0, [1, 0, 1]),
        ([0, 0, 0], "0", 0, [0, 0, 0]),
        ([5000, 5001], ("5000", "5001"), 5000, [5000, 5001]),
    ],
)
def test_discrete_actions_become_integers(actions: Any, names: Any, first: int, expected: list[int]) -> None:
    spec, found = inferred(actions)
    assert spec == DiscreteActions(tuple(names), first)
    assert found.tolist() == expected
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("actions", "width"),
    [
        ([0.5, 1.0], 1),
        ([[0.0], [0.0]], 1),
        ([[-1.0], [1.0]], 1),
        ([[1.0], [np.nan]], 1),
        ([[0, 2], [3, 1]], 2),
        ([[1, 1], [0, 0]], 2),
        ([[1.0, 0.0], [0.5, 0.5]], 2),
        ([0, MAX_DISCRETE], 1),
        (np.zeros((4, 2, 3)), 6),
    ],
)
def test_other_actions_become_rows_of_floats(actions: Any, width: int) -> None:
    spec, found = inferred(actions)
    assert isinstance(spec, ContinuousActions)
    assert spec.low.tolist() == [-np.inf] * width
    assert spec.high.tolist() == [np.inf] * width
    assert found.shape == (len(actions), width)
    assert found.dtype.kind == "f"


def test_declared_action_space_is_used_if_it_fits_the_data() -> None:
    assert inferred([0, 1], DiscreteActions(("0", "1", "2")))[0] == DiscreteActions(("0", "1", "2"))
    assert inferred([0, 4], DiscreteActions(("0", "1")))[0] == DiscreteActions(tuple("01234"))
    box = ContinuousActions(np.array([-2.0]), np.array([2.0]))
    spec, found = inferred([[1.0], [2.0]], box)
    assert spec.high.tolist() == [2.0]
    assert found.tolist() == [[1.0], [2.0]]
    assert inferred([[0.1, 0.2]], box)[0].high.tolist() == [np.inf, np.inf]


def test_last_value_of_the_column_counts() -> None:
    actions = np.zeros(1000)
    actions[:500] = 1
    assert isinstance(inferred(actions)[0], DiscreteActions)
    actions[-1] = 0.5
    assert isinstance(inferred(actions)[0], ContinuousActions)
    rows = np.eye(3)[np.arange(999) % 3]
    assert isinstance(inferred(rows)[0], DiscreteActions)
    rows[-1] = [1, 1, 0]
    assert isinstance(inferred(rows)[0], ContinuousActions)
