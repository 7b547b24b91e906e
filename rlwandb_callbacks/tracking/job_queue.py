"""Runs slow jobs beside training: in order, in a bounded queue, on an executor."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial

from rlwandb_callbacks.tracking.result import Job, Result, run_all
from rlwandb_callbacks.tracking.worker_process import (
    ONE_THREAD,
    ROOM_TO_GROW,
    CannotUnpackError,
    WorkerDiedError,
    become_worker,
    pack,
    run_packed,
)

IDLE_SECONDS = 60
SHOW_PROGRESS_AFTER_SECONDS = 1.0
OnResult = Callable[[Result], None]


@dataclass(frozen=True)
class _Pending:
    jobs: Sequence[Job]
    future: Future[Result]
    packed_bytes: int
    on_result: OnResult
    takes_place: bool


class JobQueue:
    """Bounded queue of jobs for one worker.

    The worker is started by the first submission. All methods must be called from one thread, which also runs the
    callbacks.

    Args:
        executor: ``process``, ``thread``, ``inline``, or a ``concurrent.futures.Executor``, which is never shut down.
        queue_size: Largest number of submissions that wait or run at a time, ≥ 1.
        waits_when_full: Wait for a place in a full queue rather than refuse the submission.
        max_bytes: Largest size of all pickled jobs that wait or run at a time.
        on_fallback: Called with the reason when jobs run in this thread because no worker can take them.
        prepare: Picklable function that is called in the worker process before it unpickles a job.

    Attributes:
        pending: Submissions that wait or run, or whose results have not been collected yet.

    Example:
        >>> from rlwandb_callbacks.core.values import Scalar
        >>> queue = JobQueue("inline")
        >>> queue.submit([lambda: {"eval/a": Scalar(42.0)}], print)
        Result(values={'eval/a': Scalar(value=42.0)}, error=None)
        True
    """

    def __init__(
        self,
        executor: str | Executor = "process",
        *,
        queue_size: int = 4,
        waits_when_full: bool = False,
        max_bytes: int = 2**28,
        on_fallback: Callable[[Exception], None] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._kind = executor
        self._on_fallback, self._prepare = on_fallback, prepare
        self._executor: Executor | None = None
        self._queue_size, self._waits, self._max_bytes = queue_size, waits_when_full, max_bytes
        self.pending: deque[_Pending] = deque()

    def submit(self, jobs: Sequence[Job], on_result: OnResult, *, takes_place: bool = True) -> bool:
        """Runs jobs on the worker, one after the other.

        Jobs that cannot be pickled run at once, in this thread; so do all jobs where no worker can be started.

        Args:
            jobs: They share one place in the queue, and one result.
            on_result: Called with the result by :meth:`collect` or :meth:`finish`, in the order of submission.
            takes_place: Count them in ``queue_size``; False for jobs that are submitted once in a training.

        Returns:
            False if the queue is full and the jobs were refused.
        """
        if self._kind == "inline":
            on_result(run_all(jobs))
            return True
        if takes_place and self._is_full and not self._waits:
            return False
        try:
            packed = b"" if self._kind == "thread" else pack(partial(run_all, jobs))
        except Exception as reason:  # noqa: BLE001  # pickling runs the user's code, which may raise anything
            self._run_here(jobs, on_result, reason)
            return True
        while self.pending and ((takes_place and self._is_full) or self._packed_bytes + len(packed) > self._max_bytes):
            if not self._waits:
                return False
            self._take_first(None)
        self._start(jobs, packed, on_result, takes_place)
        return True

    @property
    def _is_full(self) -> bool:
        self.collect()
        return sum(pending.takes_place for pending in self.pending) >= self._queue_size

    @property
    def _packed_bytes(self) -> int:
        return sum(pending.packed_bytes for pending in self.pending)

    def _start(self, jobs: Sequence[Job], packed: bytes, on_result: OnResult, takes_place: bool) -> None:
        try:
            self._executor = self._executor or new_executor(self._kind)
            if self._kind == "thread":
                future = self._executor.submit(run_all, jobs)
            else:
                future = self._executor.submit(run_packed, packed, list(sys.path), self._prepare)
        except Exception as reason:  # noqa: BLE001  # a dead worker, or a sandbox or daemon that may start none
            self._executor = None
            self._run_here(jobs, on_result, reason)
        else:
            self.pending.append(_Pending(jobs, future, len(packed), on_result, takes_place))

    def _run_here(self, jobs: Sequence[Job], on_result: OnResult, reason: Exception) -> None:
        if self._on_fallback is not None:
            self._on_fallback(reason)
        on_result(run_all(jobs))

    def collect(self) -> None:
        """Hands over the results that are ready, without waiting."""
        while self.pending and self.pending[0].future.done():
            self._take_first(None)

    def finish(self, max_seconds: float) -> int:
        """Waits for all pending jobs, with a progress bar if that takes long.

        Submissions that are not finished after ``max_seconds`` ≥ 0 are abandoned; returns their number.
        """
        self.collect()
        if not self.pending:
            if is_child():
                self.close()
            return 0
        from tqdm import tqdm

        deadline = time.monotonic() + max_seconds
        options = {"desc": "rlwandb: finishing", "unit": "job", "leave": False}
        try:
            with tqdm(total=len(self.pending), delay=SHOW_PROGRESS_AFTER_SECONDS, **options) as bar:
                while self.pending:
                    self._take_first(max(0.0, deadline - time.monotonic()))
                    bar.update()
        except FutureTimeoutError:
            return len(self.pending)
        finally:
            self.close()
        return 0

    def _take_first(self, timeout_seconds: float | None) -> None:
        pending = self.pending[0]
        error = pending.future.exception(timeout=timeout_seconds)
        self.pending.popleft()
        if isinstance(error, BrokenExecutor):
            self._executor = None
            error = WorkerDiedError.from_executor(error)
        if isinstance(error, CannotUnpackError):
            self._run_here(pending.jobs, pending.on_result, error)
        elif error is None:
            pending.on_result(pending.future.result())
        else:
            pending.on_result(Result(error=error if isinstance(error, Exception) else RuntimeError(repr(error))))

    def close(self) -> None:
        """Abandons pending jobs and stops the worker; the queue can be used again."""
        abandoned, self.pending = self.pending, deque()
        for pending in abandoned:
            pending.future.cancel()
        executor, self._executor = self._executor, None
        if executor is None or executor is self._kind:
            return
        if self._kind == "process" and abandoned:
            executor.shutdown(wait=False, kill_workers=True)  # type: ignore[call-arg]  # of loky's executor
        else:
            executor.shutdown(wait=is_child())


def is_child() -> bool:
    """Returns whether multiprocessing started this process, as with ``ddp_spawn``.

    Such a process joins its child processes before executors can stop their workers. A worker that is still alive then
    would block the exit of the process until its idle time-out.
    """
    return multiprocessing.parent_process() is not None


def new_executor(kind: str | Executor) -> Executor:
    """Makes an executor with one worker (``process``, ``thread``), or returns the user's executor.

    The worker process starts from a clean interpreter, is never forked, and does not run the user's script again, so
    that scripts need no ``if __name__ == "__main__"``.
    """
    if kind == "thread":
        return ThreadPoolExecutor(1, thread_name_prefix="rlwandb")
    if kind == "process":
        from loky import ProcessPoolExecutor

        env = {**ROOM_TO_GROW, **ONE_THREAD}
        # Processes that are forked need no definitions of the user's script, which this worker does not import.
        start_method = "fork" if sys.platform == "linux" else multiprocessing.get_start_method(allow_none=True)
        executor: Executor = ProcessPoolExecutor(
            1, timeout=IDLE_SECONDS, initializer=become_worker, initargs=(start_method,), env=env
        )
        return executor
    assert not isinstance(kind, str)
    return kind
