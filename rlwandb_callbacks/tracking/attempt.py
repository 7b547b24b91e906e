"""An attempt to run a job on a worker, and its outcome."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from rlwandb_callbacks.errors import describe_error, message_of
from rlwandb_callbacks.tracking.engines import cause_of
from rlwandb_callbacks.tracking.result import Result, from_bytes
from rlwandb_callbacks.tracking.worker_mark import Mark
from rlwandb_callbacks.tracking.worker_process import CannotUnpackError, JobCancelledError

POLL_SECONDS = 0.02  # between two looks at a future that is not of concurrent.futures


@dataclass
class Attempt:
    """A job on a worker.

    Args:
        future: Its result is a Result, or, from other processes, the bytes of one.
        mark: Shows when a job in another process started.
        started: ``time.monotonic()`` of the start.
        thread: Identifier of the thread that runs the job.
    """

    future: Any  # a Future of concurrent.futures, or what an executor of the user returns in its place
    mark: Mark | None = None
    started: float | None = None
    thread: int | None = None
    _outcome: Result | Exception | None = field(default=None, repr=False)

    def started_at(self) -> float | None:
        """Returns ``time.monotonic()`` of the start of the job; None if it has not started, or that is not known."""
        return self.started if self.mark is None else self.mark.started()

    def wait(self, max_seconds: float) -> None:
        """Waits until the job is done, or so long."""
        if isinstance(self.future, Future):
            wait([self.future], timeout=max_seconds)
            return
        deadline = time.monotonic() + max_seconds
        while not self.is_done() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def cancel(self) -> None:
        """Asks the executor not to run the job."""
        with contextlib.suppress(Exception):  # code of the user's executor
            self.future.cancel()

    def is_done(self) -> bool:
        """Returns whether there is an outcome."""
        try:
            return self._outcome is not None or bool(self.future.done())
        except Exception as error:  # noqa: BLE001  # code of the user's executor
            self._outcome = error
            return True

    def has_succeeded(self) -> bool:
        """Returns whether there is a result."""
        return self.is_done() and isinstance(self.outcome(), Result)

    def outcome(self) -> Result | Exception:
        """Returns the result of the job, with its errors, or why the worker did not run it; it is done."""
        if self._outcome is None:
            self._outcome = self._read()
        return self._outcome

    def _read(self) -> Result | Exception:
        try:
            if self.future.cancelled():  # exception() would raise
                return JobCancelledError()
            error = self.future.exception()
            if error is None:
                outcome = self.future.result()
                result = outcome if isinstance(outcome, Result) else from_bytes(outcome)
                return result.error if isinstance(result.error, CannotUnpackError) else result
        except BaseException as raised:  # code of the user's executor
            if isinstance(raised, KeyboardInterrupt):
                raise
            error = raised
        if _is_cancellation(error):
            return JobCancelledError(message_of(error))
        return cause_of(error) if isinstance(error, Exception) else RuntimeError(describe_error(error))


def _is_cancellation(error: BaseException) -> bool:
    """Returns whether an error says that a job was cancelled; engines have classes of their own for that."""
    return any(kind.__name__.endswith("CancelledError") for kind in type(error).__mro__)
