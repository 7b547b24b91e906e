"""Workers that die or are stuck are replaced; that costs the job which was running, and no other one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rlwandb_callbacks.tracking import workers
from rlwandb_callbacks.tracking.job_queue import JobQueue
from rlwandb_callbacks.tracking.result import Result
from rlwandb_callbacks.tracking.worker_process import JobStuckError, WorkerDiedError


def give(**values: Any) -> dict[str, Any]:
    return values


def note(file: Path) -> int:
    """Adds a letter to a file, and returns how many it had before."""
    before = len(file.read_text()) if file.exists() else 0
    with file.open("a") as stream:
        stream.write("x")
    return before


class Named:
    """Job with a name."""

    def __init__(self, name: str, work: Callable[[], Any]) -> None:
        self.name, self.work = name, work

    def __call__(self) -> Any:
        return self.work()


def wait_for_program(file: Path) -> None:
    program = subprocess.Popen(["sleep", "1000"])
    file.write_text(str(program.pid))
    program.wait()


def hold_the_lock() -> None:
    while True:
        pass


def stop_process() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def end_process(number: int, notes: Path) -> dict[str, Any]:
    note(notes)
    os.kill(os.getpid(), number)
    return {}


def end_process_once(number: int, notes: Path) -> dict[str, Any]:
    if note(notes) == 0:
        os.kill(os.getpid(), number)
    return {"again": True}


class AbortsWhenUnpickled:
    """Job that ends the process which unpickles it, as the import of a broken package does."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __reduce__(self) -> Any:
        return end_process, (signal.SIGABRT, self.notes)


class TwoArguments(Exception):  # noqa: N818
    """Error that can be pickled but not unpickled."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


def raise_two_arguments() -> None:
    raise TwoArguments(3, "planted")


@pytest.fixture
def results() -> list[Result]:
    return []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_true()


def submit_around(job: Any, results: list[Result], kind: Any = "process", **options: Any) -> JobQueue:
    """Submits a job between two others, and two more submissions."""
    queue = JobQueue(kind, queue_size=9)
    queue.submit([partial(give, before=1), job, partial(give, after=2)], results.append, **options)
    for number in (3, 4):
        queue.submit([partial(give, later=number)], results.append, **options)
    return queue


OTHERS = [{"before": 1, "after": 2}, {"later": 3}, {"later": 4}]


@pytest.mark.parametrize(
    ("work", "place"), [(hold_the_lock, "in hold_the_lock"), (stop_process, "was stopped by a signal")]
)
def test_a_stuck_worker_is_replaced_and_only_the_stuck_job_is_lost(
    results: list[Result], work: Callable[[], None], place: str
) -> None:
    queue = submit_around(Named("video/worst", work), results, max_seconds=1)
    assert queue.finish(120) == 0
    assert [result.values for result in results] == OTHERS
    error = results[0].error
    assert isinstance(error, JobStuckError)
    assert error.job == "video/worst"
    assert "video/worst was not ready after 1 s (videos.max_seconds)" in str(error)
    assert place in str(error)
    assert [result.error for result in results[1:]] == [None, None]


def test_programs_of_a_stuck_job_are_ended_with_its_worker(results: list[Result], tmp_path: Path) -> None:
    queue = submit_around(partial(wait_for_program, tmp_path / "pid"), results, max_seconds=1)
    assert queue.finish(120) == 0
    assert "called by wait_for_program (test_replaced_workers.py" in str(results[0].error)
    program = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not is_alive(program))


def test_collect_replaces_a_stuck_worker_without_waiting(results: list[Result]) -> None:
    queue = submit_around(hold_the_lock, results, max_seconds=1)
    longest = 0.0

    def has_collected_all() -> bool:
        nonlocal longest
        started = time.monotonic()
        queue.collect()
        longest = max(longest, time.monotonic() - started)
        return not queue.pending

    assert wait_until(has_collected_all)
    assert [result.values for result in results] == OTHERS
    assert longest < 3, "a stuck worker is not waited for"
    queue.close()


def test_the_limit_counts_from_the_start_of_each_job(results: list[Result]) -> None:
    queue = JobQueue("process")
    queue.submit([partial(time.sleep, 0.7)] * 4, results.append, max_seconds=2)  # longer than the limit together
    queue.submit([give], results.append, max_seconds=2)
    assert queue.finish(120) == 0
    assert not any(isinstance(result.error, JobStuckError) for result in results)


def test_a_job_without_a_limit_is_not_given_up(results: list[Result]) -> None:
    queue = JobQueue("process")
    queue.submit([partial(time.sleep, 2.5)], results.append)
    queue.submit([give], results.append, max_seconds=1)
    assert queue.finish(120) == 0
    assert not any(isinstance(result.error, JobStuckError) for result in results)


@pytest.mark.parametrize("kind", ["SIGABRT", "SIGSEGV"])
def test_a_job_that_crashes_its_worker_runs_once_and_costs_no_other_job(
    results: list[Result], tmp_path: Path, kind: str
) -> None:
    job = Named("video/best", partial(end_process, signal.Signals[kind], tmp_path / "notes"))
    queue = submit_around(job, results)
    assert queue.finish(120) == 0
    assert [result.values for result in results] == OTHERS
    assert isinstance(results[0].error, WorkerDiedError)
    assert f"({kind}) while it made video/best: compiled code failed" in str(results[0].error)
    assert (tmp_path / "notes").read_text() == "x"


def test_a_worker_that_is_killed_from_outside_costs_no_job(results: list[Result], tmp_path: Path) -> None:
    queue = submit_around(partial(end_process_once, signal.SIGKILL, tmp_path / "notes"), results)
    assert queue.finish(120) == 0
    assert results[0] == Result({"before": 1, "again": True, "after": 2})
    assert [result.values for result in results[1:]] == OTHERS[1:]


def test_a_job_whose_worker_is_killed_twice_is_given_up(results: list[Result], tmp_path: Path) -> None:
    queue = submit_around(partial(end_process, signal.SIGKILL, tmp_path / "notes"), results)
    assert queue.finish(120) == 0
    assert [result.values for result in results] == OTHERS
    assert "SIGKILL" in str(results[0].error)
    assert (tmp_path / "notes").read_text() == "xx"


def test_several_jobs_that_crash_their_workers_are_each_named(results: list[Result], tmp_path: Path) -> None:
    queue = JobQueue("process", queue_size=9)
    for name in ("first", "second", "third"):
        job = Named(name, partial(end_process, signal.SIGABRT, tmp_path / name))
        queue.submit([job, partial(give, kept=name)], results.append)
    assert queue.finish(120) == 0
    assert [result.values["kept"] for result in results] == ["first", "second", "third"]
    assert [getattr(result.error, "job", None) for result in results] == ["first", "second", "third"]


def test_jobs_that_always_crash_cost_three_workers_and_jobs_of_other_kinds_are_kept(
    results: list[Result], tmp_path: Path
) -> None:
    queue = JobQueue("process", queue_size=9)
    for _ in range(5):
        job = Named("video/best", partial(end_process, signal.SIGABRT, tmp_path / "notes"))
        queue.submit([partial(give, kept=1), job], results.append)
    assert queue.finish(120) == 0
    assert (tmp_path / "notes").read_text() == "xxx"
    assert [result.values for result in results] == [{"kept": 1}] * 5
    assert all(isinstance(result.error, WorkerDiedError) for result in results)


def test_a_job_that_crashes_while_it_is_unpickled_never_runs_in_the_training_process(
    results: list[Result], tmp_path: Path
) -> None:
    queue = submit_around(AbortsWhenUnpickled(tmp_path / "notes"), results)
    assert queue.finish(120) == 0
    assert [result.values for result in results] == OTHERS
    assert isinstance(results[0].error, WorkerDiedError)
    assert len((tmp_path / "notes").read_text()) <= 2


def test_an_error_that_cannot_be_unpickled_costs_no_other_job(results: list[Result]) -> None:
    queue = submit_around(raise_two_arguments, results)
    assert queue.finish(120) == 0
    assert [result.values for result in results] == OTHERS
    assert str(results[0].error) == "TwoArguments: planted"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_idle_worker_that_is_killed_or_stopped_is_replaced(
    results: list[Result], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.ProcessWorker, "startup_seconds", 2.0)
    fallbacks: list[Exception] = []
    queue = JobQueue("process", on_fallback=fallbacks.append)
    get_pid = partial(Named, "pid", lambda: {"it": os.getpid()})
    queue.submit([get_pid()], results.append)
    assert wait_until(lambda: (queue.collect(), not queue.pending)[1])
    worker = results[0].values["it"]
    os.kill(worker, number)
    time.sleep(0.3)
    queue.submit([get_pid()], results.append, max_seconds=1)
    assert queue.finish(60) == 0
    assert results[1].values["it"] not in (worker, os.getpid())
    assert fallbacks == []


def test_a_stuck_thread_is_replaced(results: list[Result]) -> None:
    event = threading.Event()
    queue = submit_around(Named("video/worst", event.wait), results, "thread", max_seconds=0.5)
    assert queue.finish(60) == 0
    event.set()
    assert [result.values for result in results] == OTHERS
    assert "video/worst was not ready after 0.5 s" in str(results[0].error)
    assert "it was in wait (threading.py" in str(results[0].error)


def test_a_job_that_is_stuck_in_an_executor_of_the_user_is_given_up(results: list[Result]) -> None:
    event = threading.Event()
    with ThreadPoolExecutor(2) as executor:
        queue = JobQueue(executor, queue_size=9)
        queue.submit([partial(_events.setdefault, "event", event)], results.append)
        queue.submit([wait_for_event, give], results.append, max_seconds=0.25)
        queue.submit([partial(give, later=3)], results.append, max_seconds=0.25)
        assert queue.finish(60) == 0
        event.set()
    assert "was not ready after 0.5 s" in str(results[1].error)
    assert "it may still run in your executor" in str(results[1].error)
    assert results[2].values == {"later": 3}


_events: dict[str, threading.Event] = {}


def wait_for_event() -> None:
    _events["event"].wait(20)


def test_jobs_that_are_ready_at_the_time_limit_of_the_end_are_handed_over(
    results: list[Result], capfd: pytest.CaptureFixture[str]
) -> None:
    queue = submit_around(partial(time.sleep, 60), results)
    first = queue.pending[0].tasks[0].attempt
    assert first is not None
    assert wait_until(first.future.done)
    assert queue.finish(0.1) == 3
    assert results == [Result({"before": 1})]
    time.sleep(0.5)
    assert "Traceback" not in capfd.readouterr().err, "of loky's thread"


EXITS = """
import os, signal, sys, time
from rlwandb_callbacks.tracking import workers
from rlwandb_callbacks.tracking.job_queue import JobQueue

workers.CLOSE_SECONDS = 0.5
results = []
queue = JobQueue("process" if sys.argv[1] == "stopped" else "thread")
queue.submit([lambda: {"pid": os.getpid()}], results.append)
while queue.pending:
    queue.collect()
if sys.argv[1] == "stopped":
    os.kill(results[0].values["pid"], signal.SIGSTOP)
else:
    queue.submit([lambda: time.sleep(600)], results.append)
queue.finish(0.5)
queue.close()
print("ended")
"""


@pytest.mark.parametrize("case", ["stopped", "stuck thread"])
def test_a_worker_that_does_not_end_does_not_keep_the_process_from_exiting(tmp_path: Path, case: str) -> None:
    (tmp_path / "train.py").write_text(EXITS)
    command = [sys.executable, "train.py", case]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "ended\n"


def test_nothing_is_left_in_the_temporary_folder(
    results: list[Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    queue = submit_around(partial(end_process, signal.SIGABRT, tmp_path / "notes"), results)
    queue.finish(120)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("rlwandb")] == []
