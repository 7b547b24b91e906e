"""Jobs that were submitted together, and the state of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import TypeAlias

from rlwandb_callbacks.tracking.attempt import Attempt
from rlwandb_callbacks.tracking.result import Job, Result, job_name, merged
from rlwandb_callbacks.tracking.workers import Worker

TRACEBACK_SECONDS = 0.5  # allowed for a worker to note where it is, after the time limit of its job
OnResult: TypeAlias = Callable[[Result], None]


@dataclass(eq=False)
class Task:
    """Jobs of a submission that are started together: one job, unless the worker is an executor of the user.

    Attributes:
        max_seconds: Time limit of all its jobs together in seconds; None for no limit.
        attempt: The jobs on ``worker``.
        worker: The latest one to which they were given.
        is_handed_on: Whether they were given to a second worker although they may have been running on the first.
        is_for_own_worker: Whether the executor of the user did not run them.
        result: None until they are done.
    """

    jobs: Sequence[Job]
    packed: bytes
    max_seconds: float | None
    is_for_own_worker: bool = False
    attempt: Attempt | None = None
    worker: Worker | None = None
    is_handed_on: bool = False
    result: Result | None = None
    _look_at: float | None = None  # time.monotonic(); None while other tasks are before it

    @property
    def name(self) -> str:
        """Names of the jobs; empty if they have none."""
        return ", ".join(filter(None, map(job_name, self.jobs)))

    @property
    def is_on_broken_executor(self) -> bool:
        """Whether the jobs were given to an executor of the user that has broken, as one of its processes has ended."""
        if self.attempt is None or self.worker is None or self.worker.is_own or not self.attempt.is_done():
            return False
        return isinstance(self.attempt.outcome(), BrokenExecutor)

    def start_on(self, worker: Worker) -> None:
        """Gives the jobs to a worker, also if another one had them before."""
        self._look_at, self.worker = None, worker
        self.attempt = worker.start(self.jobs, self.packed, self.max_seconds)

    def is_late(self, attempt: Attempt, worker: Worker) -> bool:
        """Returns whether the first task has exceeded its limit, which counts from its start, where that is known."""
        if self.max_seconds is None:
            return False
        now = time.monotonic()
        if self._look_at is None:
            self._look_at = now + self.max_seconds
        if now < self._look_at:
            return False
        started = attempt.started_at()
        if started is None:
            return now >= self._look_at + worker.startup_seconds
        self._look_at = started + self.max_seconds + TRACEBACK_SECONDS
        return now >= self._look_at


def new_tasks(
    jobs: Sequence[Job], worker: Worker, max_seconds: float | None, *, is_for_own_worker: bool = False
) -> list[Task]:
    """Packs jobs for a worker; ``max_seconds`` is the time limit of each.

    Raises:
        Exception: Of any type, if a job cannot be pickled.
    """
    return [
        Task(group, worker.pack(group), None if max_seconds is None else max_seconds * len(group), is_for_own_worker)
        for group in worker.group(jobs)
    ]


@dataclass(eq=False)
class Submission:
    """Jobs with one place in the queue and one result."""

    tasks: list[Task]
    on_result: OnResult
    takes_place: bool  # in the queue, whose size is limited
    max_seconds: float | None  # of each job

    def result(self) -> Result:
        """Returns the result of the tasks that are done."""
        return merged(task.result for task in self.tasks if task.result is not None)

    def unfinished(self) -> list[Task]:
        """Returns the tasks that are not done, in order."""
        return [task for task in self.tasks if task.result is None]

    def exchange(self, task: Task, others: Sequence[Task]) -> None:
        """Puts other tasks with the jobs of a task in its place."""
        place = self.tasks.index(task)
        self.tasks[place : place + 1] = others

    @property
    def packed_bytes(self) -> int:
        """Size of the pickled jobs that are not done."""
        return sum(len(task.packed) for task in self.unfinished())
