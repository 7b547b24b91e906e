"""An executor of the user as a worker."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from rlwandb_callbacks.tracking.attempt import Attempt
from rlwandb_callbacks.tracking.engines import WorkerWatch
from rlwandb_callbacks.tracking.result import Job, run_to_bytes
from rlwandb_callbacks.tracking.worker_process import pack, run_packed


class ExecutorWorker:
    """An executor of the user, which is never shut down; it may run several jobs at a time."""

    is_own = False
    startup_seconds = 0.0

    def __init__(self, executor: Executor, prepare: Callable[[], None] | None) -> None:
        self._executor, self._prepare = executor, prepare
        self._watch = WorkerWatch(executor)

    def group(self, jobs: Sequence[Job]) -> Sequence[Sequence[Job]]:
        """Returns all jobs in one group: a worker elsewhere gets what they share only once."""
        return [tuple(jobs)]

    def pack(self, jobs: Sequence[Job]) -> bytes:
        """Pickles jobs."""
        return pack(partial(run_to_bytes, tuple(jobs)))

    def start(self, jobs: Sequence[Job], packed: bytes, max_seconds: float | None) -> Attempt:
        """Submits jobs; what they raise is a part of their reply, so an error of the future is one of the executor."""
        # Dask answers a submission that equals an earlier one from its future, without running it again.
        arguments = (packed, list(sys.path), os.getpid(), self._prepare, None, uuid.uuid4().hex)
        return Attempt(self._executor.submit(run_packed, *arguments))

    def lost_reason(self) -> str:
        """Returns why the executor will never finish what was submitted; empty while it may."""
        return self._watch.lost_reason()

    def place(self, attempt: Attempt) -> str:  # such a worker may be on another machine
        """Returns what is to be known about a job that takes too long."""
        return "it may still run in your executor, from which it cannot be removed"

    def kill(self) -> None:
        """Leaves the executor alone."""

    def close(self) -> None:
        """Leaves the executor alone."""
