from __future__ import annotations

import numpy as np
import pytest

from rlwandb_callbacks.callbacks.schedule import Every


def fired(every: Every, counts: list[int]) -> list[int]:
    return [count for count in counts if every.due(count)]


@pytest.mark.parametrize(
    ("interval", "counts", "expected"),
    [
        (3, [1, 2, 3, 4, 5, 6, 7], [3, 6]),
        (1, [1, 2, 3], [1, 2, 3]),
        (5, [2, 4, 6, 8, 10, 12], [6, 10]),
        (10, [4, 8, 12, 16, 20, 45], [12, 20, 45]),
        (10, [1000, 1001, 1010], [1000, 1010]),
        (4, [0, 1, 2, 3], []),
        (4, [4, 4, 4, 8], [4, 8]),
    ],
)
def test_fires_once_per_multiple_that_is_reached_or_passed(
    interval: int, counts: list[int], expected: list[int]
) -> None:
    assert fired(Every(interval), counts) == expected


@pytest.mark.parametrize("interval", [1, 2, 7, 50])
def test_fires_exactly_if_a_jump_contains_a_multiple(interval: int) -> None:
    counts = np.cumsum(np.random.default_rng(interval).integers(0, 2 * interval + 3, size=200)).tolist()
    expected = [
        after
        for before, after in zip([0, *counts], counts, strict=False)
        if any(step % interval == 0 for step in range(before + 1, after + 1))
    ]
    assert fired(Every(interval), counts) == expected


def test_continues_from_a_resumed_counter() -> None:
    assert fired(Every(10, last=37), [38, 39, 40, 41]) == [40]


def test_would_fire_changes_nothing() -> None:
    every = Every(5)
    assert [every.would_fire(5), every.would_fire(5), every.due(5), every.would_fire(5), every.would_fire(10)] == [
        True,
        True,
        True,
        False,
        True,
    ]
