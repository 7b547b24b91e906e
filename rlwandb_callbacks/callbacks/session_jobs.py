"""The job queue of a session: what is left out is counted and warned of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.environments.headless import set_headless_backends
from rlwandb_callbacks.tracking.job_queue import JobQueue
from rlwandb_callbacks.tracking.result import Job, Result


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

    def submit(self, what: str, jobs: Sequence[Job], take: Callable[[Result], None], *, takes_place: bool) -> None:
        """Queues jobs; ``what`` is their work, as the subject of a warning, and ``take`` gets the result."""
        if not self._queue.submit(jobs, take, takes_place=takes_place):
            self.skipped += 1
            self._errors.warn_once(
                f"{what} was skipped, as the queue of videos and pictures is full (queue_size={self._cfg.queue_size}); "
                "logging/skipped counts what was skipped. Evaluate less often, show fewer or shorter episodes, or set "
                "queue_full='wait'.",
                kind="skipped",
            )

    def finish(self) -> None:
        """Waits for the jobs, at most ``finish_seconds``."""
        abandoned = self._queue.finish(self._cfg.finish_seconds)
        if abandoned:
            self.skipped += abandoned
            self._errors.warn_once(
                f"videos, pictures or maps were not ready {self._cfg.finish_seconds:g} s after the end of training and "
                f"were abandoned ({abandoned} in the queue). Set finish_seconds higher to wait for them, or show fewer "
                "or shorter episodes (videos.select, evaluation.max_steps).",
                kind="abandoned",
            )

    def _warn_of_fallback(self, reason: Exception) -> None:
        self._errors.warn_once(
            f"videos and pictures are made in the training process, which waits for them, as no worker could take the "
            f"job ({type(reason).__name__}: {reason}). An environment that is made by an importable function or class "
            "can be sent to a worker; executor='inline' ends this warning.",
            kind="worker",
        )
