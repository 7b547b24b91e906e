"""Writes rows in order on a background thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from rlwandb_callbacks.tracking.wait_limit import WaitLimit

MIN_WAIT_SECONDS = 2.0  # for files that are written to the local disk, also where nothing else may be waited for


class RowThread:
    """Runs calls one after the other on a thread, which lives while there are calls.

    The thread is a daemon, so that a call that waits for a server for ever does not keep the process from its exit.

    Args:
        max_pending: Largest number of calls that wait or run, which bounds the memory that they hold.

    Attributes:
        pending: Number of calls that wait or run.

    Example:
        >>> rows = RowThread()
        >>> rows.submit(lambda: print("row"))
        True
        >>> rows.wait(WaitLimit(5.0))
        row
        0
    """

    def __init__(self, max_pending: int = 32) -> None:
        self._max_pending = max_pending
        self._calls: deque[Callable[[], None]] = deque()
        self._has_changed = threading.Condition()
        self._errors: list[Exception] = []
        self._is_running = False
        self.pending = 0

    def submit(self, call: Callable[[], None]) -> bool:
        """Queues a call, whose exception :meth:`errors` returns; False if too many wait, and it is refused."""
        with self._has_changed:
            if self.pending >= self._max_pending:
                return False
            if not self._is_running:
                threading.Thread(target=self._run, name="rlwandb-rows", daemon=True).start()
                self._is_running = True
            self._calls.append(call)
            self.pending += 1
        return True

    def _run(self) -> None:
        while True:
            with self._has_changed:  # which submit holds until the first call is there
                if not self._calls:
                    self._is_running = False
                    return
                call = self._calls.popleft()
            error = _error_of(call)
            with self._has_changed:
                self._errors += [] if error is None else [error]
                self.pending -= 1
                self._has_changed.notify_all()

    def errors(self) -> list[Exception]:
        """Returns the exceptions of completed calls, each of them once."""
        with self._has_changed:
            errors, self._errors = self._errors, []
        return errors

    def wait(self, limit: WaitLimit) -> int:
        """Waits until there are no calls, as long as the limit allows; returns how many are left."""
        least = WaitLimit(MIN_WAIT_SECONDS)
        with self._has_changed:
            while self.pending and (seconds := max(limit.turn_seconds(), least.turn_seconds())) > 0:
                self._has_changed.wait(seconds)
            return self.pending


def _error_of(call: Callable[[], None]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001  # the caller of `errors` reports it
        return error
    return None
