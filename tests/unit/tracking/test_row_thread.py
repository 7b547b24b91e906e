"""Calls on the thread that writes rows with files."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from rlwandb_callbacks.tracking.row_thread import RowThread
from rlwandb_callbacks.tracking.wait_limit import WaitLimit


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Returns an event that calls may wait for, and that is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def test_calls_run_in_order_on_another_thread_that_ends() -> None:
    rows, ran = RowThread(max_pending=100), list[tuple[int, str]]()
    for number in range(100):
        assert rows.submit(lambda number=number: ran.append((number, threading.current_thread().name)))
    assert rows.wait(WaitLimit(30.0)) == 0
    assert ran == [(number, "rlwandb-rows") for number in range(100)]
    for thread in threading.enumerate():
        if thread.name == "rlwandb-rows":
            thread.join(30.0)
            assert not thread.is_alive()


def test_a_later_call_starts_the_thread_again() -> None:
    rows, ran = RowThread(), list[int]()
    for number in range(3):
        rows.submit(lambda number=number: ran.append(number))
        rows.wait(WaitLimit(30.0))
    assert ran == [0, 1, 2]


def test_errors_are_returned_once_and_stop_no_later_call() -> None:
    rows, ran = RowThread(), list[int]()
    rows.submit(lambda: ran.append(1 // 0))
    rows.submit(lambda: ran.append(2))
    rows.wait(WaitLimit(30.0))
    assert ran == [2]
    assert [type(error) for error in rows.errors()] == [ZeroDivisionError]
    assert rows.errors() == []


def test_too_many_waiting_calls_are_refused_without_waiting(released: threading.Event) -> None:
    rows = RowThread(max_pending=2)
    assert [rows.submit(released.wait) for _ in range(3)] == [True, True, False]
    released.set()
    assert rows.wait(WaitLimit(30.0)) == 0
    assert rows.submit(released.wait)


def test_waiting_ends_with_the_limit_and_returns_what_is_left(released: threading.Event) -> None:
    rows = RowThread()
    rows.submit(released.wait)
    rows.submit(released.wait)
    assert rows.wait(WaitLimit(0.1)) == 2


def test_a_call_that_never_returns_does_not_keep_the_process_alive(released: threading.Event) -> None:
    RowThread().submit(released.wait)
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "rlwandb-rows"] == [True]
