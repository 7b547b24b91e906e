"""Limits for jobs that run in the training process, where no worker can be replaced."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlwandb_callbacks.core.output import unfailing_output
from rlwandb_callbacks.core.values import Value
from rlwandb_callbacks.evaluation.random_states import preserved_random_states
from rlwandb_callbacks.evaluation.stopping import StoppedError, Stopping
from rlwandb_callbacks.tracking.result import Job, Result, job_name
from rlwandb_callbacks.tracking.worker_process import JobStuckError

SETTING = "videos.max_seconds"


def _this_thread() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def _unpickled(job: Job, max_seconds: float | None, thread: tuple[int, int]) -> Job:
    return TimeLimitedJob(job, max_seconds, thread=thread)


def _warn(message: str) -> None:
    with unfailing_output():
        warnings.warn(f"rlwandb: {message}", UserWarning, stacklevel=2)


@dataclass(frozen=True)
class TimeLimitedJob:
    """Runs a job; in the thread that made this, which is that of the training, the job is kept from disturbing it.

    A job that hangs is interrupted there, and the random states, which environments may seed, are restored after it.
    In other threads and processes it is the job alone.

    Args:
        job: What to run.
        max_seconds: Time limit in seconds, > 0; None for none.
        is_interrupted: Returns whether the training is being interrupted, so that the job must end.
        on_interrupted: Called if the job was left out for that.
    """

    job: Job
    max_seconds: float | None
    is_interrupted: Callable[[], bool] = lambda: False
    on_interrupted: Callable[[], object] = lambda: None
    thread: tuple[int, int] = field(default_factory=_this_thread)

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns what unpickles as a job for the same thread, as an executor of the user may run it there."""
        return _unpickled, (self.job, self.max_seconds, self.thread)

    @property
    def name(self) -> str:
        """Its work, for messages."""
        return job_name(self.job)

    def __call__(self) -> Result | Mapping[str, Value]:
        """Runs the job.

        Raises:
            JobStuckError: If it was interrupted.
        """
        if self.thread != _this_thread():
            return self.job()
        stopping = Stopping(self.max_seconds, self.is_interrupted, warn=_warn, setting=SETTING)
        try:
            stopping.check()
            with preserved_random_states(), stopping.interruptible(lambda: self.name or "A job"):
                return self.job()
        except StoppedError as error:
            if self.is_interrupted():
                self.on_interrupted()
                return Result()
            stuck = JobStuckError(str(error))
            stuck.job = self.name
            raise stuck from error
