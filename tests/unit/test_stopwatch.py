from __future__ import annotations

import pytest

from rlwandb_callbacks.callbacks.stopwatch import Stopwatch


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_blocks_are_added_up_and_inner_ones_counted_once(clock: Clock) -> None:
    stopwatch = Stopwatch(clock)
    for seconds in (2, 3):
        with stopwatch.running(), stopwatch.running():
            clock.now += seconds
    assert stopwatch.seconds == 5


def test_the_share_is_that_of_all_time_since_the_start(clock: Clock) -> None:
    stopwatch = Stopwatch(clock)
    with stopwatch.running():
        clock.now += 1
    clock.now += 9
    values = {key: value.value for key, value in stopwatch.values().items()}
    assert values == {"time/logging_seconds": 1.0, "time/logging_share": 0.1}


def test_before_any_time_has_passed_the_share_is_zero(clock: Clock) -> None:
    assert Stopwatch(clock).values()["time/logging_share"].value == 0.0


def test_a_block_that_raises_is_counted_and_the_next_one_too(clock: Clock) -> None:
    stopwatch = Stopwatch(clock)

    def fail() -> None:
        with stopwatch.running():
            clock.now += 2
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        fail()
    with stopwatch.running():
        clock.now += 1
    assert stopwatch.seconds == 3
