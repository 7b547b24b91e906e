"""Runs slow jobs beside training: in order, in a bounded queue, on a worker that is replaced if it dies or is stuck."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor

from rlwandb_callbacks.tracking.attempt import Attempt
from rlwandb_callbacks.tracking.job_progress import progress_of_jobs
from rlwandb_callbacks.tracking.result import Job, Result, run_all
from rlwandb_callbacks.tracking.submission import OnResult, Submission, Task, new_tasks
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from rlwandb_callbacks.tracking.worker_choice import WorkerChoice
from rlwandb_callbacks.tracking.worker_process import (
    CannotUnpackError,
    JobCancelledError,
    JobStuckError,
    WorkerDiedError,
    WorkersLostError,
    reason_of,
)
from rlwandb_callbacks.tracking.workers import Worker, is_child

MOST_LOSSES_IN_A_ROW = 3  # of workers by jobs with names: an environment that always crashes or hangs ends each of them
LONGEST_WAIT_SECONDS = 0.5  # between two looks at the time limit of a job


class JobQueue:
    """Bounded queue of jobs for one worker.

    The worker is started by the first submission. If its process dies, or a job is stuck in it, that job alone is
    lost: the others are handed to a new worker. Three such losses in a row also end the jobs with names that wait. What
    an executor of the user fails to run is run by a worker process of our own. All methods must be called from one
    thread, which also runs the callbacks.

    Args:
        executor: ``process``, ``thread``, ``inline``, or a ``concurrent.futures.Executor``, which is never shut down.
        queue_size: Largest number of submissions that wait or run at a time, ≥ 1.
        waits_when_full: Wait for a place in a full queue rather than refuse the submission.
        max_bytes: Largest size of all pickled jobs that wait or run at a time.
        on_fallback: Called with the reason when jobs run in this thread because no worker can take them.
        on_executor_failure: Called with the reason when the user's executor has failed to run jobs.
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
        on_fallback: Callable[[Exception], object] = lambda _: None,
        on_executor_failure: Callable[[Exception], object] = lambda _: None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._is_inline = executor == "inline"
        self._workers = WorkerChoice(executor, prepare)
        self._on_fallback, self._on_executor_failure = on_fallback, on_executor_failure
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
        if self._is_inline:
            on_result(run_all(jobs))
            return True
        self.collect()
        if takes_place and self._is_full and not self._waits:
            return False
        try:
            tasks = new_tasks(jobs, self._workers.main(), max_seconds)
        except Exception as reason:  # noqa: BLE001  # pickling runs the user's code; a sandbox may start no process
            on_result(self._run_here(jobs, reason))
            return True
        submission = Submission(tasks, on_result, takes_place, max_seconds)
        while self.pending and not self._has_room_for(submission.packed_bytes, takes_place=takes_place):
            if not self._waits or is_interrupted():
                return False
            self._take_first(LONGEST_WAIT_SECONDS)
        self.pending.append(submission)
        for task in tuple(tasks):
            self._start(task, submission)
        self.collect()
        return True

    @property
    def _is_full(self) -> bool:
        return sum(submission.takes_place for submission in self.pending) >= self._queue_size

    def _has_room_for(self, size: int, *, takes_place: bool) -> bool:
        packed_bytes = sum(submission.packed_bytes for submission in self.pending)
        return packed_bytes + size <= self._max_bytes and not (takes_place and self._is_full)

    def _start(self, task: Task, submission: Submission, *, is_second_try: bool = False) -> None:
        task.attempt, worker = None, None
        try:
            worker = self._workers.worker_for(task)
            task.start_on(worker)
        except Exception as reason:  # noqa: BLE001  # a sandbox or daemon that may start no process, a broken executor
            self._workers.drop(worker)
            if worker is not None and not worker.is_own:
                self._leave_executor(task, submission, reason)
            elif isinstance(reason, BrokenExecutor) and not is_second_try:  # it died while it had nothing to do
                self._start(task, submission, is_second_try=True)
            else:
                task.result = self._run_here(task.jobs, reason)

    def _run_here(self, jobs: Sequence[Job], reason: Exception) -> Result:
        self._on_fallback(reason)
        return run_all(jobs)

    def _leave_executor(self, task: Task, submission: Submission, reason: Exception) -> None:
        """Gives jobs, and those that come later, to a worker process; what the user's executor runs is waited for."""
        self._workers.leave_executor()
        self._run_elsewhere(task, submission, reason)
        for each in self.pending:
            for waiting in each.unfinished():
                if waiting.is_on_broken_executor:
                    self._run_elsewhere(waiting, each, reason)

    def _run_elsewhere(self, task: Task, submission: Submission, reason: Exception) -> None:
        """Gives jobs that the user's executor did not run to a worker process of our own, each of them alone."""
        self._on_executor_failure(reason_of(reason))
        if task.attempt is not None:
            task.attempt.cancel()
        try:
            tasks = new_tasks(task.jobs, self._workers.process(), submission.max_seconds, is_for_own_worker=True)
        except Exception as no_process:  # noqa: BLE001  # a sandbox that may start no process
            task.result = self._run_here(task.jobs, no_process)
            return
        submission.exchange(task, tasks)
        for each in tasks:
            each.is_handed_on = task.attempt is not None and not isinstance(reason, WorkersLostError)
            self._start(each, submission)

    def collect(self) -> None:
        """Hands over the results that are ready and replaces a worker that is dead or stuck, without waiting."""
        while self.pending:
            submission = self.pending[0]
            while (task := next(iter(submission.unfinished()), None)) is not None:
                self._look_at(task, submission)
                if task.result is None and task in submission.tasks:
                    return
            self.pending.popleft()
            submission.on_result(submission.result())

    def _look_at(self, task: Task, submission: Submission) -> None:
        """Takes the result of the first unfinished task if it is done or stuck."""
        attempt, worker = task.attempt, task.worker
        if attempt is None or worker is None or (self._workers.is_replaced(worker) and not attempt.has_succeeded()):
            self._start(task, submission)
        elif attempt.is_done():
            self._take_outcome(attempt, worker, task, submission)
        elif reason := worker.lost_reason():
            self._leave_executor(task, submission, WorkersLostError(reason))
        elif task.is_late(attempt, worker):
            self._give_up(attempt, worker, task)

    def _take_outcome(self, attempt: Attempt, worker: Worker, task: Task, submission: Submission) -> None:
        outcome = attempt.outcome()
        if isinstance(outcome, Result):
            task.result = outcome
            self._losses_in_a_row = 0 if task.name else self._losses_in_a_row
        elif isinstance(outcome, JobCancelledError):
            task.result = Result(error=JobCancelledError.of(task.name, outcome))
        elif task.is_on_broken_executor:
            self._leave_executor(task, submission, outcome)
        elif not worker.is_own:
            self._run_elsewhere(task, submission, outcome)
        elif isinstance(outcome, CannotUnpackError):
            task.result = self._run_here(task.jobs, outcome)
        elif isinstance(outcome, BrokenExecutor):
            self._take_death(attempt, task, outcome)
        else:
            task.result = Result(error=outcome)

    def _give_up(self, attempt: Attempt, worker: Worker, task: Task) -> None:
        """Loses the task that is stuck; if the worker did not even start it, the task gets another one, but once."""
        assert task.max_seconds is not None
        stuck = JobStuckError.after(task.max_seconds, task.name, worker.place(attempt))
        if not worker.is_own:
            attempt.cancel()
            task.result = Result(error=stuck)
            return
        if attempt.started_at() is not None or task.is_handed_on:
            self._lose(task, stuck)
        task.is_handed_on = True
        self._replace(worker)

    def _take_death(self, attempt: Attempt, task: Task, error: BrokenExecutor) -> None:
        """Loses the task that ended the worker; one that was ended from outside, or before it started, runs again."""
        died = WorkerDiedError.from_executor(error, task.name)
        may_run_again = died.is_from_outside or (attempt.mark is not None and attempt.started_at() is None)
        if task.is_handed_on or not may_run_again:
            self._lose(task, died)
        task.is_handed_on = True
        self._replace(task.worker)

    def _lose(self, task: Task, error: Exception) -> None:
        """Ends a task with an error; after several in a row, also those that wait for its worker and have names."""
        task.result = Result(error=error)
        self._losses_in_a_row += 1 if task.name else 0
        if self._losses_in_a_row == MOST_LOSSES_IN_A_ROW:
            self._losses_in_a_row = 0
            for waiting in (each for submission in self.pending for each in submission.unfinished()):
                if waiting.name and waiting.worker is task.worker:
                    waiting.result = task.result

    def _replace(self, worker: Worker | None) -> None:
        """Ends a worker, and gives what it has not done to a new one."""
        self._workers.drop(worker)
        for submission in self.pending:
            for task in submission.unfinished():
                if task.worker is worker:
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
        total = len(self.pending)
        try:
            with progress_of_jobs(total) as show_done:
                while self.pending and (turn_seconds := limit.turn_seconds()):
                    self._take_first(turn_seconds)
                    show_done(total - len(self.pending))
            return self._abandon()
        finally:
            self.close()

    def _take_first(self, max_seconds: float) -> None:
        """Waits for the first unfinished job, and collects."""
        task = next(iter(self.pending[0].unfinished()), None)
        if task is not None and task.attempt is not None:
            task.attempt.wait(max_seconds)
        self.collect()

    def _abandon(self) -> int:
        """Hands over what is ready of the submissions that are not finished."""
        abandoned = list(self.pending)
        for submission in abandoned:
            for task in submission.unfinished():
                if task.attempt is not None and task.attempt.has_succeeded():
                    outcome = task.attempt.outcome()
                    task.result = outcome if isinstance(outcome, Result) else None
            if (result := submission.result()).values:
                submission.on_result(Result(result.values))
        return len(abandoned)

    def close(self) -> None:
        """Abandons pending jobs and stops the worker; the queue can be used again."""
        abandoned, self.pending = self.pending, deque()
        for task in (task for submission in abandoned for task in submission.unfinished()):
            if task.attempt is not None and task.worker is not None and not task.worker.is_own:
                task.attempt.cancel()
        self._workers.close(at_once=bool(abandoned))
