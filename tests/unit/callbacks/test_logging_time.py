from __future__ import annotations

import pytest

from rlwandb_callbacks.callbacks.logging_time import LoggingTimer


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
    logging_timer = LoggingTimer(clock)
    for seconds in (2, 3):
        with logging_timer.running(), logging_timer.running():
            clock.now += seconds
    assert logging_timer.seconds == 5


def test_the_share_is_that_of_all_time_since_the_start(clock: Clock) -> None:
    logging_timer = LoggingTimer(clock)
    with logging_timer.running():
        clock.now += 1
    clock.now += 9
    values = {key: value.value for key, value in logging_timer.values().items()}
    assert values == {"time/logging_seconds": 1.0, "time/logging_share": 0.1}


def test_before_any_time_has_passed_the_share_is_zero(clock: Clock) -> None:
    assert LoggingTimer(clock).values()["time/logging_share"].value == 0.0


def test_a_block_that_raises_is_counted_and_the_next_one_too(clock: Clock) -> None:
    logging_timer = LoggingTimer(clock)

    def fail() -> None:
        with logging_timer.running():
            clock.now += 2
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        fail()
    with logging_timer.running():
        clock.now += 1
    assert logging_timer.seconds == 3
