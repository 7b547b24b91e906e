"""The workers of a job queue: that of its kind, and a process for what an executor of the user does not run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from rlwandb_callbacks.tracking.submission import Task
from rlwandb_callbacks.tracking.workers import Worker, new_worker


class WorkerChoice:
    """Starts workers when they are needed first, and chooses one for each task.

    Args:
        kind: As in :class:`~rlwandb_callbacks.tracking.job_queue.JobQueue`.
        prepare: Picklable function that is called in the worker process before it unpickles a job.
    """

    def __init__(self, kind: str | Executor, prepare: Callable[[], None] | None) -> None:
        self._kind, self._prepare = kind, prepare
        self._of_kind: Worker | None = None
        self._process: Worker | None = None
        self._has_left = False

    def main(self) -> Worker:
        """Returns the worker for new jobs; raises any exception if it cannot be started."""
        if self._has_left:
            return self.process()
        if self._of_kind is None:
            self._of_kind = new_worker(self._kind, self._prepare)
        return self._of_kind

    def process(self) -> Worker:
        """Returns the process for what the user's executor does not run; raises as :meth:`main`."""
        if self._process is None:
            self._process = new_worker("process", self._prepare)
        return self._process

    def worker_for(self, task: Task) -> Worker:
        """Returns the worker for a task; raises as :meth:`main`."""
        return self.process() if task.is_for_own_worker else self.main()

    def is_replaced(self, worker: Worker) -> bool:
        """Returns whether a worker was dropped, so that what was given to it is not done."""
        return worker.is_own and worker not in (self._of_kind, self._process)

    def leave_executor(self) -> None:
        """Gives no more jobs to the user's executor until :meth:`close`."""
        self._has_left = True

    def drop(self, worker: Worker | None) -> None:
        """Ends a worker, unless it belongs to the user; the next task gets a new one."""
        if worker is None or not worker.is_own:
            return
        worker.kill()
        if worker is self._of_kind:
            self._of_kind = None
        if worker is self._process:
            self._process = None

    def close(self, *, at_once: bool) -> None:
        """Ends the workers; ``at_once`` if they may still have jobs."""
        for worker in (self._of_kind, self._process):
            if worker is not None and at_once:
                self.drop(worker)
            elif worker is not None:
                worker.close()
        self._of_kind = self._process = None
        self._has_left = False
