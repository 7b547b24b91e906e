"""Runs slow jobs beside training: in order, in a bounded queue, on a worker that is replaced if it dies or is stuck."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, wait

from rlwandb_callbacks.core.output import seconds_between_refreshes, stream_of_progress, unfailing_output
from rlwandb_callbacks.tracking.result import Job, Result, run_all
from rlwandb_callbacks.tracking.submission import OnResult, Submission, Task
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from rlwandb_callbacks.tracking.worker_process import CannotUnpackError, JobStuckError, WorkerDiedError
from rlwandb_callbacks.tracking.workers import Attempt, Worker, is_child, new_worker

SHOW_PROGRESS_AFTER_SECONDS = 1.0
MOST_LOSSES_IN_A_ROW = 3  # of workers by jobs with names: an environment that always crashes or hangs ends each of them
LONGEST_WAIT_SECONDS = 0.5  # between two looks at the time limit of a job


class JobQueue:
    """Bounded queue of jobs for one worker.

    The worker is started by the first submission. If its process dies, or a job is stuck in it, that job alone is
    lost: the others are handed to a new worker. Three such losses in a row also end the jobs with names that wait. All
    methods must be called from one thread, which also runs the callbacks.

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
        self._worker: Worker | None = None
        self._queue_size, self._waits, self._max_bytes = queue_size, waits_when_full, max_bytes
        self._losses_in_a_row = 0
        self.pending: deque[Submission] = deque()

    def submit(
        self,
        jobs: Sequence[Job],
        on_result: OnResult,
        *,
        takes_place: bool = True,
        max_seconds: float | None = None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Runs jobs on the worker, one after the other.

        Jobs that cannot be pickled run at once, in this thread; so do all jobs where no worker can be started.

        Args:
            jobs: They share one place in the queue, and one result.
            on_result: Called with the result by :meth:`collect` or :meth:`finish`, in the order of submission.
            takes_place: Count them in ``queue_size``; False for jobs that are submitted once in a training.
            max_seconds: Time limit of each job in seconds, > 0, after which it is given up, and a worker of our own
                that it blocks is replaced; None for no limit. On the user's executor it holds for all jobs together,
                times their number. It does not hold for jobs that run in this thread.
            is_interrupted: Returns whether the training is being interrupted, so that no place may be waited for.

        Returns:
            False if the queue is full and the jobs were refused.
        """
        if self._kind == "inline":
            on_result(run_all(jobs))
            return True
        self.collect()
        if takes_place and self._is_full and not self._waits:
            return False
        try:
            worker = self._started_worker()
            tasks = [Task(job, worker.pack(job)) for job in worker.split(jobs)]
        except Exception as reason:  # noqa: BLE001  # pickling runs the user's code; a sandbox may start no process
            on_result(self._run_here(jobs, reason))
            return True
        limit = None if max_seconds is None else max_seconds * len(jobs) / max(1, len(tasks))
        submission = Submission(tasks, on_result, takes_place, limit)
        size = submission.packed_bytes
        while self.pending and ((takes_place and self._is_full) or self._packed_bytes + size > self._max_bytes):
            if not self._waits or is_interrupted():
                return False
            self._take_first(LONGEST_WAIT_SECONDS)
        self.pending.append(submission)
        for task in tasks:
            self._start(task, submission)
        self.collect()
        return True

    @property
    def _is_full(self) -> bool:
        return sum(submission.takes_place for submission in self.pending) >= self._queue_size

    @property
    def _packed_bytes(self) -> int:
        return sum(submission.packed_bytes for submission in self.pending)

    def _started_worker(self) -> Worker:
        if self._worker is None:
            self._worker = new_worker(self._kind, self._prepare)
        return self._worker

    def _start(self, task: Task, submission: Submission) -> None:
        task.attempt = None
        try:
            try:
                task.start_on(self._started_worker(), submission.max_seconds)
            except BrokenExecutor:  # the worker died while it had nothing to do
                self._drop_worker()
                task.start_on(self._started_worker(), submission.max_seconds)
        except Exception as reason:  # noqa: BLE001  # a sandbox or daemon that may start no process, a broken executor
            self._drop_worker()
            task.result = self._run_here([task.job], reason)

    def _run_here(self, jobs: Sequence[Job], reason: Exception) -> Result:
        if self._on_fallback is not None:
            self._on_fallback(reason)
        return run_all(jobs)

    def _drop_worker(self) -> None:
        """Ends the worker, unless it belongs to the user; what was started on it is started again later."""
        if self._worker is not None and self._worker.is_own:
            self._worker.kill()
            self._worker = None

    def collect(self) -> None:
        """Hands over the results that are ready and replaces a worker that is dead or stuck, without waiting."""
        while self.pending:
            submission = self.pending[0]
            for task in submission.unfinished():
                self._look_at(task, submission)
                if task.result is None:
                    return
            self.pending.popleft()
            submission.on_result(submission.result())

    def _look_at(self, task: Task, submission: Submission) -> None:
        """Takes the result of the first unfinished task if it is done or stuck."""
        attempt, worker = task.attempt, task.worker
        if attempt is None or worker is None or (worker is not self._worker and not attempt.has_succeeded()):
            self._start(task, submission)
        elif not attempt.future.done():
            if submission.max_seconds is not None and task.is_late(attempt, worker, submission.max_seconds):
                self._give_up(attempt, worker, task, submission.max_seconds)
        elif attempt.future.cancelled():  # by the user's executor
            task.result = Result(error=RuntimeError("The executor was shut down before it ran the job."))
        elif (error := attempt.future.exception()) is None:
            task.result = attempt.result()
            self._losses_in_a_row = 0 if task.name else self._losses_in_a_row
        elif isinstance(error, CannotUnpackError):
            task.result = self._run_here([task.job], error)
        elif isinstance(error, BrokenExecutor):
            self._take_death(attempt, worker, task, error)
        else:
            task.result = Result(error=error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _give_up(self, attempt: Attempt, worker: Worker, task: Task, max_seconds: float) -> None:
        """Loses the task that is stuck; if the worker did not even start it, the task gets another one, but once."""
        if not worker.is_own:
            attempt.future.cancel()
            task.result = Result(error=JobStuckError.after(max_seconds, task.name, worker.place(attempt)))
            return
        if attempt.started_at() is not None or task.is_handed_on:
            self._lose(task, JobStuckError.after(max_seconds, task.name, worker.place(attempt)))
        task.is_handed_on = True
        self._replace_worker()

    def _take_death(self, attempt: Attempt, worker: Worker, task: Task, error: BrokenExecutor) -> None:
        """Loses the task that ended the worker; one that was ended from outside, or before it started, runs again."""
        died = WorkerDiedError.from_executor(error, task.name)
        if not worker.is_own:
            task.result = Result(error=died)
            return
        may_run_again = died.is_from_outside or (attempt.mark is not None and attempt.started_at() is None)
        if task.is_handed_on or not may_run_again:
            self._lose(task, died)
        task.is_handed_on = True
        self._replace_worker()

    def _lose(self, task: Task, error: Exception) -> None:
        """Ends a task with an error; after several in a row, also those with names that wait, which are of its kind."""
        task.result = Result(error=error)
        self._losses_in_a_row += 1 if task.name else 0
        if self._losses_in_a_row == MOST_LOSSES_IN_A_ROW:
            self._losses_in_a_row = 0
            for waiting in (each for submission in self.pending for each in submission.unfinished() if each.name):
                waiting.result = task.result

    def _replace_worker(self) -> None:
        self._drop_worker()
        for submission in self.pending:
            for task in submission.unfinished():
                self._start(task, submission)

    def finish(self, limit: WaitLimit | float) -> int:
        """Waits for all pending jobs, with a progress bar if that takes long.

        Submissions that are not finished within the limit, or that many seconds ≥ 0, are abandoned, and what is ready
        of them is handed over; returns their number.
        """
        limit = limit if isinstance(limit, WaitLimit) else WaitLimit(limit)
        self.collect()
        if not self.pending:
            if is_child():
                self.close()
            return 0
        from tqdm import tqdm

        stream = stream_of_progress()
        options = {"desc": "rlwandb: finishing", "unit": "job", "leave": False, "file": stream}
        options |= {"delay": SHOW_PROGRESS_AFTER_SECONDS, "mininterval": seconds_between_refreshes(stream)}
        total = len(self.pending)
        try:
            with unfailing_output(), tqdm(total=total, **options) as bar:
                while self.pending and (turn_seconds := limit.turn_seconds()):
                    self._take_first(turn_seconds)
                    bar.update(total - len(self.pending) - bar.n)
            return self._abandon()
        finally:
            self.close()

    def _take_first(self, max_seconds: float) -> None:
        """Waits for the first unfinished job, and collects."""
        task = next(self.pending[0].unfinished(), None)
        if task is not None and task.attempt is not None:
            wait([task.attempt.future], timeout=max_seconds)
        self.collect()

    def _abandon(self) -> int:
        """Hands over what is ready of the submissions that are not finished."""
        abandoned = list(self.pending)
        for submission in abandoned:
            for task in submission.unfinished():
                if task.attempt is not None and task.attempt.has_succeeded():
                    task.result = task.attempt.result()
            if (result := submission.result()).values:
                submission.on_result(Result(result.values))
        return len(abandoned)

    def close(self) -> None:
        """Abandons pending jobs and stops the worker; the queue can be used again."""
        abandoned, self.pending = self.pending, deque()
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if not abandoned:
            worker.close()
        elif worker.is_own:
            worker.kill()
        else:
            for task in (task for submission in abandoned for task in submission.unfinished()):
                if task.attempt is not None:
                    task.attempt.future.cancel()
