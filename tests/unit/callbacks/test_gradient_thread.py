from __future__ import annotations

import threading
import time

import pytest

from rlwandb_callbacks.callbacks.gradients.thread import BackgroundThread


def test_calls_run_in_order_on_one_other_thread() -> None:
    background, seen = BackgroundThread(), []
    for number in range(20):
        background.submit(lambda number=number: seen.append((number, threading.get_ident())))
    background.close()
    assert [number for number, _ in seen] == list(range(20))
    assert {thread for _, thread in seen} != {threading.get_ident()}
    assert len({thread for _, thread in seen}) == 1


def test_the_caller_goes_on_until_the_bound_is_reached() -> None:
    background, gate, begun = BackgroundThread(max_waiting=2), threading.Event(), []
    background.submit(gate.wait)
    background.submit(lambda: None)
    blocked = threading.Thread(target=lambda: (begun.append(1), background.submit(lambda: begun.append(2))))
    blocked.start()
    time.sleep(0.1)
    assert blocked.is_alive()
    assert begun == [1]
    gate.set()
    blocked.join(timeout=60)
    background.close()
    assert begun == [1, 2]


def test_errors_are_given_once_and_stop_nothing() -> None:
    background, seen = BackgroundThread(), []

    def fail() -> None:
        raise ValueError("broken")

    background.submit(fail)
    background.submit(lambda: seen.append("after"))
    background.close()
    (error,) = background.errors()
    assert isinstance(error, ValueError)
    assert background.errors() == []
    assert seen == ["after"]


@pytest.mark.parametrize("rounds", [1, 3])
def test_no_thread_is_left_and_another_may_begin(rounds: int) -> None:
    before, background, seen = threading.active_count(), BackgroundThread(), []
    for number in range(rounds):
        background.submit(lambda number=number: seen.append(number))
        background.close()
        assert threading.active_count() == before
    assert seen == list(range(rounds))


def test_nothing_submitted_is_nothing_started() -> None:
    before, background = threading.active_count(), BackgroundThread()
    background.close()
    assert threading.active_count() == before
