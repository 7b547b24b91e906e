from __future__ import annotations

import threading
import time

import pytest

from rlwandb_callbacks.callbacks.gradients.thread import BackgroundThread


def test_calls_run_in_order_on_one_background_thread() -> None:
    background, calls = BackgroundThread(), []
    for number in range(20):
        background.submit(lambda number=number: calls.append((number, threading.get_ident())))
    background.close()
    assert [number for number, _ in calls] == list(range(20))
    assert {thread for _, thread in calls} != {threading.get_ident()}
    assert len({thread for _, thread in calls}) == 1


def test_submit_waits_only_at_the_limit() -> None:
    background, gate, started = BackgroundThread(), threading.Event(), []
    background.submit(gate.wait)
    background.submit(lambda: None)
    blocked = threading.Thread(target=lambda: (started.append(1), background.submit(lambda: started.append(2))))
    blocked.start()
    time.sleep(0.1)
    assert blocked.is_alive()
    assert started == [1]
    gate.set()
    blocked.join(timeout=60)
    background.close()
    assert started == [1, 2]


def test_errors_are_returned_once_and_do_not_stop_later_calls() -> None:
    background, calls = BackgroundThread(), []

    def fail() -> None:
        raise ValueError("broken")

    background.submit(fail)
    background.submit(lambda: calls.append("after"))
    background.close()
    (error,) = background.errors()
    assert isinstance(error, ValueError)
    assert background.errors() == []
    assert calls == ["after"]


@pytest.mark.parametrize("rounds", [1, 3])
def test_close_ends_the_thread_and_a_later_call_starts_another(rounds: int) -> None:
    before, background, calls = threading.active_count(), BackgroundThread(), []
    for number in range(rounds):
        background.submit(lambda number=number: calls.append(number))
        background.close()
        assert threading.active_count() == before
    assert calls == list(range(rounds))


def test_no_thread_is_started_without_a_call() -> None:
    before, background = threading.active_count(), BackgroundThread()
    background.close()
    assert threading.active_count() == before
