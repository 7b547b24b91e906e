"""What is known of the engines behind executors of the user, found by what their objects have, never by an import."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Executor
from typing import Any

LOOK_SECONDS = 0.5  # between two checks of an engine, which are requested at every batch
# How long an engine may have no workers. Those of a cluster that were closed in an orderly way, as by Ctrl-C, are not
# started again; a cluster that was scaled to zero may be adaptive; where neither is known, a queue of a computing
# center may be starting some.
CLOSED_SECONDS, SCALED_DOWN_SECONDS, UNKNOWN_SECONDS = 1.0, 15.0, 60.0
ENDED = ("closing", "closing_gracefully", "closed", "failed")


class WorkerWatch:
    """Notices that the engine of an executor has lost its workers, so that its jobs would never be run.

    Known are engines whose executor holds a client with a state of the cluster, as that of Dask does. Nothing is asked
    of a scheduler, which may be out of reach: only what the client knows already is read.

    Args:
        executor: The executor of the user.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> WorkerWatch(ThreadPoolExecutor()).lost_reason()
        ''
    """

    def __init__(self, executor: Executor) -> None:
        self._client = getattr(executor, "_client", None)
        self._next_look = 0.0  # time.monotonic(), as are the others
        self._lost_since: float | None = None
        self._reason = ""

    def lost_reason(self) -> str:
        """Returns, as a clause, why no job will be done any more; empty while some may be, or if that is not known."""
        now = time.monotonic()
        if self._client is not None and now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look(now)
        return self._reason

    def _look(self, now: float) -> None:
        patience = None
        with contextlib.suppress(Exception):  # objects of other packages, which other threads change
            patience = _seconds_without_workers(self._client)
        if patience is None:
            self._lost_since, self._reason = None, ""
            return
        if self._lost_since is None:
            self._lost_since = now
        if now - self._lost_since >= patience:
            self._reason = "its cluster has no workers any more, and none has come back"


def _seconds_without_workers(client: Any) -> float | None:
    """Returns how long a client's cluster may stay as it is until its workers are given up; None if it has some."""
    cluster = getattr(client, "cluster", None)
    workers = getattr(cluster, "workers", None)  # objects that start and end the workers of this cluster, by name
    if isinstance(workers, dict):
        states = [getattr(getattr(worker, "status", None), "name", "") for worker in workers.values()]
        if states:
            return CLOSED_SECONDS if all(state in ENDED for state in states) else None
        return None if _count_of_workers(client) else SCALED_DOWN_SECONDS
    return None if _count_of_workers(client) else UNKNOWN_SECONDS


def _count_of_workers(client: Any) -> int:
    """Returns the number of workers by the latest report of the scheduler, which clients ask for every 2 seconds."""
    report = client._scheduler_identity  # noqa: SLF001  # scheduler_info() waits for the scheduler
    count = report.get("n_workers")
    return len(report["workers"]) if count is None else int(count)


def cause_of(error: Exception) -> Exception:
    """Returns the error that an engine has put into one of its own, if there is one.

    Ray's errors hold the error of the work as ``cause``, and a traceback with colors as text.

    Example:
        >>> error = RuntimeError("Traceback ...")
        >>> error.cause = ValueError("no display")
        >>> cause_of(error)
        ValueError('no display')
    """
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error
