"""Calls that run in order on a background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

MAX_PENDING = 2


class BackgroundThread:
    """Runs calls one after the other on one thread, which the first call starts.

    At most two calls are waiting or running. One more waits for the oldest, so that memory is bounded and no call is
    lost.

    Example:
        >>> background, rows = BackgroundThread(), []
        >>> background.submit(lambda: rows.append("row"))
        >>> background.close()
        >>> rows
        ['row']
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._errors: list[Exception] = []

    def submit(self, call: Callable[[], None]) -> None:
        """Queues a call."""
        while self._pending and (self._pending[0].done() or len(self._pending) >= MAX_PENDING):
            self._wait_for_oldest()
        self._executor = self._executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="rlwandb-gradients")
        self._pending.append(self._executor.submit(call))

    def _wait_for_oldest(self) -> None:
        error = self._pending[0].exception()
        self._pending.popleft()  # only now: a KeyboardInterrupt while waiting loses no call
        if isinstance(error, Exception):
            self._errors.append(error)

    def errors(self) -> list[Exception]:
        """Returns the exceptions of completed calls, each of them once."""
        errors, self._errors = self._errors, []
        return errors

    def close(self) -> None:
        """Waits for all calls and ends the thread; a later call starts another one."""
        while self._pending:
            self._wait_for_oldest()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None
