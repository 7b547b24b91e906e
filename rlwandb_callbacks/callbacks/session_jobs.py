"""The job queue of a session: what is left out is counted and warned of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.environments.headless import set_headless_backends
from rlwandb_callbacks.errors import name_and_message
from rlwandb_callbacks.evaluation.time_limited_job import TimeLimitedJob
from rlwandb_callbacks.tracking.job_queue import JobQueue
from rlwandb_callbacks.tracking.result import Job, Result
from rlwandb_callbacks.tracking.wait_limit import WaitLimit

TOLD_TO_END = "Nothing is waited for, as the process was told to end (SIGTERM)."


class SessionJobs:
    """Runs the slow jobs of a training.

    Args:
        cfg: Settings of the executor and the queue.
        errors: Gets warnings.

    Attributes:
        skipped: Jobs that the queue refused, or that were not ready in time.
    """

    def __init__(self, cfg: WandbRLConfig, errors: ErrorPolicy) -> None:
        self._cfg, self._errors = cfg, errors
        self.skipped = 0
        self._queue = self._new_queue()

    def _new_queue(self) -> JobQueue:
        return JobQueue(
            self._cfg.executor,
            queue_size=self._cfg.queue_size,
            waits_when_full=self._cfg.queue_full == "wait",
            max_bytes=self._cfg.videos.max_bytes,
            on_fallback=self._warn_of_fallback,
            on_executor_failure=self._warn_of_executor,
            prepare=set_headless_backends,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the queue, which holds the worker."""
        return {name: value for name, value in vars(self).items() if name != "_queue"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores jobs with an empty queue."""
        self.__dict__.update(state)
        self._queue = self._new_queue()

    @property
    def are_pending(self) -> bool:
        """Whether there are jobs whose results were not taken yet."""
        return bool(self._queue.pending)

    def collect(self) -> None:
        """Takes the results that are ready."""
        self._queue.collect()

    def submit(
        self,
        what: str,
        jobs: Sequence[Job],
        take: Callable[[Result], None],
        *,
        takes_place: bool,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Queues jobs; ``what`` is their work, as the subject of a warning, and ``take`` gets the result.

        Each job that takes a place has the time limit ``videos.max_seconds``; the map of a data set has none. Once
        ``is_interrupted`` returns True, nothing is waited for: neither a place in the queue nor jobs in this process.
        """
        max_seconds = self._cfg.videos.max_seconds if takes_place else None
        left_out: list[str] = []
        limited = [TimeLimitedJob(job, max_seconds, is_interrupted, partial(left_out.append, what)) for job in jobs]
        is_queued = self._queue.submit(
            limited, take, takes_place=takes_place, max_seconds=max_seconds, is_interrupted=is_interrupted
        )
        if is_queued and not left_out:
            return
        self.skipped += 1
        if is_interrupted():
            self._errors.warn_once(f"{what} was abandoned. {TOLD_TO_END}", kind="abandoned")
        else:
            self._errors.warn_once(
                f"{what} was skipped, as the queue of videos and pictures is full (queue_size={self._cfg.queue_size}); "
                "logging/skipped counts what was skipped. Evaluate less often, show fewer or shorter episodes, or set "
                "queue_full='wait'.",
                kind="skipped",
            )

    def finish(self, limit: WaitLimit) -> None:
        """Waits for the jobs."""
        abandoned = self._queue.finish(limit)
        if abandoned:
            self.skipped += abandoned
            self._errors.warn_once(self._describe_abandoned(abandoned, limit), kind="abandoned")

    def _describe_abandoned(self, count: int, limit: WaitLimit) -> str:
        when = "" if limit.is_interrupted() else f" within {limit.max_seconds:g} s"
        return (
            f"videos, pictures or maps were not ready{when} at the end of training and were abandoned ({count} in the "
            f"queue). {advice_at_end(limit, self._cfg.finish_seconds)}"
        )

    def _warn_of_fallback(self, reason: Exception) -> None:
        self._errors.warn_once(
            f"videos and pictures are made in the training process, which waits for them, as no worker could take the "
            f"job ({name_and_message(reason)}). An environment that is made by an importable function or class "
            "can be sent to a worker; executor='inline' ends this warning.",
            kind="worker",
        )

    def _warn_of_executor(self, reason: Exception) -> None:
        name = type(self._cfg.executor).__name__
        self._errors.warn_once(
            f"your executor ({name}) failed to run a job ({name_and_message(reason)}). Videos, pictures and maps that "
            "it does not make are made in a worker process on the machine of the training.",
            kind="executor",
        )


def advice_at_end(limit: WaitLimit, finish_seconds: float) -> str:
    """Returns, as a sentence, why the end of a training waits no longer for what is left out, or what to do.

    Args:
        limit: How long it may wait.
        finish_seconds: How long it may wait if it ends by itself.
    """
    if limit.is_interrupted():
        return TOLD_TO_END
    if limit.max_seconds < finish_seconds:
        return f"A training that ends by an exception or Ctrl-C waits {limit.max_seconds:g} s at most."
    return (
        "Set finish_seconds higher to wait for them, or show fewer or shorter episodes (videos.select, "
        "evaluation.max_steps)."
    )
