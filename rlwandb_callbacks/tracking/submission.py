"""Jobs that were submitted together, and what has become of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rlwandb_callbacks.tracking.result import Job, Result, job_name, merged
from rlwandb_callbacks.tracking.workers import Attempt, Worker

TRACEBACK_SECONDS = 0.5  # allowed for a worker to note where it is, after the time limit of its job
OnResult: TypeAlias = Callable[[Result], None]


@dataclass(eq=False)
class Task:
    """One job of a submission.

    Attributes:
        attempt: The job on ``worker``.
        worker: The latest one to which it was given.
        is_handed_on: Whether it was given to a second worker although it may have been running on the first.
        result: None until it is done.
    """

    job: Job
    packed: bytes
    attempt: Attempt | None = None
    worker: Worker | None = None
    is_handed_on: bool = False
    result: Result | None = None
    _look_at: float | None = None  # time.monotonic(); None while other tasks are before it

    @property
    def name(self) -> str:
        """Name of the job; empty if it has none."""
        return job_name(self.job)

    def start_on(self, worker: Worker, max_seconds: float | None) -> None:
        """Gives the job to a worker, also if another one had it before."""
        self._look_at, self.worker = None, worker
        self.attempt = worker.start(self.job, self.packed, max_seconds)

    def is_late(self, attempt: Attempt, worker: Worker, max_seconds: float) -> bool:
        """Returns whether the first task has exceeded its limit, which counts from its start, where that is known."""
        now = time.monotonic()
        if self._look_at is None:
            self._look_at = now + max_seconds
        if now < self._look_at:
            return False
        started = attempt.started_at()
        if started is None:
            return now >= self._look_at + worker.startup_seconds
        self._look_at = started + max_seconds + TRACEBACK_SECONDS
        return now >= self._look_at


@dataclass(eq=False)
class Submission:
    """Jobs with one place in the queue and one result."""

    tasks: Sequence[Task]
    on_result: OnResult
    takes_place: bool  # in the queue, whose size is limited
    max_seconds: float | None  # of each task

    def result(self) -> Result:
        """Returns the result of the tasks that are done."""
        return merged(task.result for task in self.tasks if task.result is not None)

    def unfinished(self) -> Iterator[Task]:
        """Returns the tasks that are not done, in order."""
        return (task for task in self.tasks if task.result is None)

    @property
    def packed_bytes(self) -> int:
        """Size of the pickled jobs that are not done."""
        return sum(len(task.packed) for task in self.unfinished())
