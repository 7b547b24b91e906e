"""Runs slow work beside training: in order, bounded, on an executor; results and errors come back to who asked."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.tracking.worker_process import (
    ONE_THREAD,
    ROOM_TO_GROW,
    CannotUnpackError,
    become_worker,
    pack,
    run_packed,
)

IDLE_SECONDS = 60
SHOW_PROGRESS_AFTER_SECONDS = 1.0
Done = Callable[["Result"], None]


@dataclass(frozen=True)
class Result:
    """What became of a piece of work.

    Args:
        result: What it gave; None where it failed.
        error: Why it failed.
    """

    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class _Job:
    work: Callable[[], Any]
    future: Future[Any]
    bytes_in_flight: int
    done: Done
    counts: bool


class JobQueue:
    """A bounded queue of work.

    Nothing is started before the first piece of work. All methods belong to one thread; ``done`` is called on it.

    Args:
        executor: ``process``, ``thread``, ``inline``, or an executor of the user's, which is never shut down.
        queue_size: Pieces of work that may wait or run at a time, ≥ 1.
        waits_when_full: Wait for a place, rather than refuse.
        max_bytes: Packed work that may be under way at a time.
        on_fallback: Told, with the reason, when work is done in this thread because no worker can have it.

    Example:
        >>> jobs = JobQueue("inline")
        >>> jobs.submit(lambda: 6 * 7, print)
        Result(result=42, error=None)
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
    ) -> None:
        self._kind = executor
        self._on_fallback = on_fallback
        self._executor: Executor | None = None
        self._queue_size, self._waits, self._max_bytes = queue_size, waits_when_full, max_bytes
        self._pending: deque[_Job] = deque()

    @classmethod
    def from_config(cls, cfg: WandbRLConfig, on_fallback: Callable[[Exception], None]) -> JobQueue:
        """Makes the queue that the settings ask for."""
        return cls(
            cfg.executor,
            queue_size=cfg.queue_size,
            waits_when_full=cfg.queue_full == "wait",
            max_bytes=cfg.videos.max_bytes,
            on_fallback=on_fallback,
        )

    def __len__(self) -> int:
        return len(self._pending)

    def submit(self, work: Callable[[], Any], done: Done, *, counts: bool = True) -> bool:
        """Has work done.

        Work that cannot be pickled is done at once, in this thread, as is all work where no worker can be started.

        Args:
            work: Gives a picklable result.
            done: Takes the outcome, in :meth:`collect` or :meth:`finish`, in the order of submission.
            counts: Whether it takes a place in the queue, and has to find one; not so for what is done once.

        Returns:
            False where the queue is full and the work was refused.
        """
        if self._kind == "inline":
            done(outcome_of(work))
            return True
        if counts and self.is_full and not self._waits:
            return False
        try:
            packed = b"" if self._kind == "thread" else pack(work)
        except Exception as reason:  # noqa: BLE001  # pickling runs the user's code, which may raise anything
            self._do_here(work, done, reason)
            return True
        while self._pending and ((counts and self.is_full) or self._bytes_in_flight + len(packed) > self._max_bytes):
            if not self._waits:
                return False
            self._take_first(None)
        self._start(work, packed, done, counts)
        return True

    @property
    def is_full(self) -> bool:
        """Tells whether work would have to wait, or be refused, for its number."""
        self.collect()
        return sum(job.counts for job in self._pending) >= self._queue_size

    @property
    def _bytes_in_flight(self) -> int:
        return sum(job.bytes_in_flight for job in self._pending)

    def _start(self, work: Callable[[], Any], packed: bytes, done: Done, counts: bool) -> None:
        try:
            self._executor = self._executor or new_executor(self._kind)
            if self._kind == "thread":
                future = self._executor.submit(work)
            else:
                future = self._executor.submit(run_packed, packed, list(sys.path))
        except Exception as reason:  # noqa: BLE001  # a worker that died, a sandbox or a daemon that may start none
            self._executor = None
            self._do_here(work, done, reason)
        else:
            self._pending.append(_Job(work, future, len(packed), done, counts))

    def _do_here(self, work: Callable[[], Any], done: Done, reason: Exception) -> None:
        if self._on_fallback is not None:
            self._on_fallback(reason)
        done(outcome_of(work))

    def collect(self) -> None:
        """Hands over what is done, without waiting."""
        while self._pending and self._pending[0].future.done():
            self._take_first(None)

    def finish(self, max_seconds: float) -> int:
        """Waits for all that is under way, with a progress bar where that takes long.

        Args:
            max_seconds: After which the rest is given up, ≥ 0.

        Returns:
            How many pieces of work were given up.
        """
        self.collect()
        if not self._pending:
            if is_child():
                self.close()
            return 0
        from tqdm import tqdm

        deadline = time.monotonic() + max_seconds
        options = {"desc": "rlwandb: finishing", "unit": "report", "leave": False}
        try:
            with tqdm(total=len(self), delay=SHOW_PROGRESS_AFTER_SECONDS, **options) as bar:
                while self._pending:
                    self._take_first(max(0.0, deadline - time.monotonic()))
                    bar.update()
        except FutureTimeoutError:
            return len(self)
        finally:
            self.close()
        return 0

    def _take_first(self, timeout_seconds: float | None) -> None:
        job = self._pending[0]
        error: BaseException | None = job.future.exception(timeout=timeout_seconds)
        self._pending.popleft()
        if isinstance(error, BrokenExecutor):
            self._executor = None
        if isinstance(error, CannotUnpackError):
            self._do_here(job.work, job.done, error)
        elif error is None:
            job.done(Result(job.future.result()))
        else:
            job.done(Result(error=error if isinstance(error, Exception) else RuntimeError(repr(error))))

    def close(self) -> None:
        """Gives up what is under way and stops the worker; the queue may be used again."""
        given_up, self._pending = self._pending, deque()
        for job in given_up:
            job.future.cancel()
        executor, self._executor = self._executor, None
        if executor is None or executor is self._kind:
            return
        if self._kind == "process" and given_up:
            executor.shutdown(wait=False, kill_workers=True)  # type: ignore[call-arg]  # of loky's executor
        else:
            executor.shutdown(wait=is_child())


def is_child() -> bool:
    """Tells whether multiprocessing started this process, as for ``ddp_spawn``.

    Such a process joins its own children when it ends, before it lets their executor tell them to leave: a worker that
    is still there would be waited for, forever or until it has idled long enough.
    """
    return multiprocessing.parent_process() is not None


def new_executor(kind: str | Executor) -> Executor:
    """Makes an executor with one worker, or gives back the user's own.

    The worker process is started from a clean interpreter, never forked, and does not run the user's script again, so
    that scripts need no ``if __name__ == "__main__"``.

    Args:
        kind: ``process``, ``thread``, or an executor.
    """
    if kind == "thread":
        return ThreadPoolExecutor(1, thread_name_prefix="rlwandb")
    if kind == "process":
        from loky import ProcessPoolExecutor

        env = {**ROOM_TO_GROW, **ONE_THREAD}
        executor: Executor = ProcessPoolExecutor(1, timeout=IDLE_SECONDS, initializer=become_worker, env=env)
        return executor
    assert not isinstance(kind, str)
    return kind


def outcome_of(work: Callable[[], Any]) -> Result:
    """Does work now."""
    try:
        return Result(work())
    except Exception as error:  # noqa: BLE001  # whoever submitted it decides
        return Result(error=error)
