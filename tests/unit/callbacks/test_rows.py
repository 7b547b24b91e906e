"""Order of rows whose values come from different threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rlwandb_callbacks.callbacks.gradients.thread import BackgroundThread
from rlwandb_callbacks.callbacks.rows import Rows
from rlwandb_callbacks.core.values import Scalar


def axes(step: int) -> dict[str, float]:
    return {"trainer/global_step": step, "time/updates": step + 1}


def recorder(written: list[tuple[float, set[str]]]) -> Callable[[Mapping[str, float], Mapping[str, Any]], None]:
    return lambda at, values: written.append((at["trainer/global_step"], set(values)))


def test_rows_are_written_in_the_order_of_their_steps_while_training_goes_on() -> None:
    written: list[tuple[float, set[str]]] = []
    thread, may_count = BackgroundThread(), threading.Event()
    rows = Rows(recorder(written), dict)
    rows.add(axes(0), {"loss": Scalar(1.0)})
    write = rows.writer(axes(0), thread.submit)
    thread.submit(lambda: (may_count.wait(10), write({"histogram": Scalar(2.0)}))[0])
    for step in (1, 2, 3):
        rows.add(axes(step), {"loss": Scalar(step)})
    rows.close_row()
    assert written == []
    may_count.set()
    thread.close()
    assert written == [(0, {"loss", "histogram"}), (1, {"loss"}), (2, {"loss"}), (3, {"loss"})]


def test_every_row_is_written_once_and_in_order_whatever_thread_is_faster() -> None:
    written: list[tuple[float, set[str]]] = []
    thread = BackgroundThread()
    rows = Rows(recorder(written), dict)
    for step in range(300):
        rows.add(axes(step), {"loss": Scalar(step)})
        if step % 3 == 0:
            write = rows.writer(axes(step), thread.submit)
            thread.submit(lambda write=write: write({"histogram": Scalar(0.0)}))  # type: ignore[misc]  # default argument
        if step % 7 == 0:
            time.sleep(0.0005)
    rows.close_row()
    thread.close()
    rows.flush()
    assert [step for step, _ in written] == list(range(300))
    assert all(("histogram" in keys) == (step % 3 == 0) for step, keys in written)


def test_a_row_that_cannot_be_written_does_not_hold_back_others() -> None:
    written: list[float] = []

    def write(at: Mapping[str, float], values: Mapping[str, Any]) -> None:
        if at["trainer/global_step"] == 0:
            raise OSError("no space left")
        written.append(at["trainer/global_step"])

    rows, thread = Rows(write, dict), BackgroundThread()
    finish = rows.writer(axes(0), thread.submit)
    rows.add(axes(1), {"loss": Scalar(1.0)})
    rows.close_row()
    thread.submit(lambda: finish({"histogram": Scalar(0.0)}))
    thread.close()
    assert [str(error) for error in thread.errors()] == ["no space left"]
    rows.flush()
    assert written == [1]
