"""What a job queue starts jobs on: a process of its own, a thread, or an executor of the user."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rlwandb_callbacks.tracking.attempt import Attempt
from rlwandb_callbacks.tracking.executor_worker import ExecutorWorker
from rlwandb_callbacks.tracking.result import Job, run_all, run_to_bytes
from rlwandb_callbacks.tracking.worker_mark import Mark, describe_place
from rlwandb_callbacks.tracking.worker_process import ONE_THREAD, ROOM_TO_GROW, become_worker, pack, run_packed

IDLE_SECONDS = 60
STARTUP_SECONDS = 60.0  # allowed for the start of a process and the imports of a job, in addition to its time limit
CLOSE_SECONDS = 5.0  # in which an idle process that was told to end does so


class Worker(Protocol):
    """Runs jobs one after the other.

    Attributes:
        is_own: Whether it can be ended, and replaced by a new one, without harm to others.
        startup_seconds: Longest time in seconds from a job's turn to its start.
    """

    is_own: bool
    startup_seconds: float

    def group(self, jobs: Sequence[Job]) -> Sequence[Sequence[Job]]:
        """Returns the jobs of a submission as they are started: one by one, or all together."""

    def pack(self, jobs: Sequence[Job]) -> bytes:
        """Pickles jobs that are started together, if they are sent to another process."""

    def start(self, jobs: Sequence[Job], packed: bytes, max_seconds: float | None) -> Attempt:
        """Queues jobs; ``max_seconds`` is the time after which the worker notes where they are."""

    def lost_reason(self) -> str:
        """Returns why the worker, which is not our own, will never finish its jobs; empty while it may."""

    def place(self, attempt: Attempt) -> str:
        """Returns where a job is that takes too long; empty if that is not known."""

    def kill(self) -> None:
        """Ends the worker at once, with all that its jobs have started, without waiting for that."""

    def close(self) -> None:
        """Ends the worker, which has nothing to do."""


class ProcessWorker:
    """A process that starts from a clean interpreter.

    It is never forked, and does not run the user's script again, so that scripts need no ``if __name__ ==
    "__main__"``.
    """

    is_own = True
    startup_seconds = STARTUP_SECONDS

    def __init__(self, prepare: Callable[[], None] | None) -> None:
        from loky import ProcessPoolExecutor

        self._prepare = prepare
        self._numbers = itertools.count()
        self._folder: str | None = None
        with contextlib.suppress(OSError):  # without a temporary folder, starts of jobs are not known
            self._folder = tempfile.mkdtemp(prefix="rlwandb-jobs-")
            self._remove_folder = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        # Processes that are forked need no definitions of the user's script, which this worker does not import.
        start_method = "fork" if sys.platform == "linux" else multiprocessing.get_start_method(allow_none=True)
        self._executor: Any = ProcessPoolExecutor(
            1,
            timeout=IDLE_SECONDS,
            initializer=become_worker,
            initargs=(start_method, self._folder),
            env={**ROOM_TO_GROW, **ONE_THREAD},
        )

    def group(self, jobs: Sequence[Job]) -> Sequence[Sequence[Job]]:
        return _each_alone(jobs)

    def pack(self, jobs: Sequence[Job]) -> bytes:
        return pack(partial(run_to_bytes, tuple(jobs)))

    def start(self, jobs: Sequence[Job], packed: bytes, max_seconds: float | None) -> Attempt:
        mark = None
        if self._folder is not None:
            mark = Mark(str(Path(self._folder, str(next(self._numbers)))), max_seconds)
        future = self._executor.submit(run_packed, packed, list(sys.path), os.getpid(), self._prepare, mark)
        return Attempt(future, mark)

    def lost_reason(self) -> str:
        return ""

    def place(self, attempt: Attempt) -> str:
        if any(_is_stopped(process.pid) for process in self._processes()):
            return "its process was stopped by a signal, such as SIGSTOP"
        place = "" if attempt.mark is None else attempt.mark.place()
        return place and f"it was in {place}"

    def _processes(self) -> list[Any]:
        return list(getattr(self._executor, "_processes", {}).values())

    def kill(self) -> None:
        for process in self._processes():
            _kill_group(process.pid)
        self._executor.shutdown(wait=False, kill_workers=True)
        self._clean_up()

    def close(self) -> None:
        guard = threading.Timer(CLOSE_SECONDS, _kill_remaining, [self._processes()])
        guard.daemon = True
        guard.start()
        self._executor.shutdown(wait=is_child())
        self._clean_up()

    def _clean_up(self) -> None:
        if self._folder is not None:
            self._remove_folder()


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:  # it has ended, or the system is not Linux
        return False


def _kill_group(pid: int) -> None:
    """Kills a worker and the processes that it started, such as ffmpeg; all are in the worker's own process group."""
    with contextlib.suppress(OSError, AttributeError):  # it has ended, or the system has no groups
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)


def _kill_remaining(processes: list[Any]) -> None:
    for process in processes:
        if process.exitcode is None:
            _kill_group(process.pid)


def _each_alone(jobs: Sequence[Job]) -> Sequence[Sequence[Job]]:
    """Returns groups of one job: one that ends or blocks the worker costs itself only."""
    return [(job,) for job in jobs]


def is_child() -> bool:
    """Returns whether multiprocessing started this process, as with ``ddp_spawn``.

    Such a process joins its child processes before executors can stop their workers. A worker that is still alive then
    would block the exit of the process until its idle time-out.
    """
    return multiprocessing.parent_process() is not None


class ThreadWorker:
    """A daemon thread, which does not keep the process from exiting if a job never returns."""

    is_own = True
    startup_seconds = 0.0

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Attempt, Sequence[Job]] | None] = queue.SimpleQueue()
        self._is_killed = False
        threading.Thread(target=self._run, name="rlwandb", daemon=True).start()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None and not self._is_killed:
            attempt, jobs = item
            attempt.started, attempt.thread = time.monotonic(), threading.get_ident()
            try:
                attempt.future.set_result(run_all(jobs))
            except BaseException as error:  # noqa: BLE001  # such as SystemExit, which ends neither thread nor training
                attempt.future.set_exception(error)
            del item, attempt, jobs  # which hold the episode until the next job comes

    def group(self, jobs: Sequence[Job]) -> Sequence[Sequence[Job]]:
        return _each_alone(jobs)

    def pack(self, jobs: Sequence[Job]) -> bytes:  # nothing is sent to another process
        return b""

    def start(self, jobs: Sequence[Job], packed: bytes, max_seconds: float | None) -> Attempt:  # as above
        attempt = Attempt(Future())
        self._queue.put((attempt, jobs))
        return attempt

    def lost_reason(self) -> str:
        return ""

    def place(self, attempt: Attempt) -> str:
        frames = sys._current_frames()  # noqa: SLF001  # documented, and named like a private function
        frame = None if attempt.thread is None else frames.get(attempt.thread)
        stack = [] if frame is None else reversed(traceback.extract_stack(frame))
        place = describe_place([(each.filename, each.lineno or 0, each.name) for each in stack])
        return place and f"it was in {place}"

    def kill(self) -> None:
        """Leaves the thread alone, as Python cannot end it; it takes no more jobs."""
        self._is_killed = True
        self._queue.put(None)

    def close(self) -> None:
        self.kill()


def new_worker(kind: str | Executor, prepare: Callable[[], None] | None = None) -> Worker:
    """Makes the worker of a kind: ``process``, ``thread``, or the user's executor.

    Args:
        kind: As in :class:`~rlwandb_callbacks.tracking.job_queue.JobQueue`.
        prepare: Picklable function that is called in the worker process before it unpickles a job.
    """
    if kind == "process":
        return ProcessWorker(prepare)
    if kind == "thread":
        return ThreadWorker()
    assert not isinstance(kind, str)
    return ExecutorWorker(kind, prepare)
