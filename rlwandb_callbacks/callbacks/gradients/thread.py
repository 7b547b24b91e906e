"""Calls that run in order on a thread of their own, while the caller goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

MAX_WAITING = 2


class BackgroundThread:
    """Runs calls one after the other on one thread, which is started by the first of them.

    At most ``max_waiting`` calls are under way: who submits one more waits for the oldest, so that what they hold
    stays bounded and nothing is lost.

    Args:
        max_waiting: How many calls may wait or run, ≥ 1.
        name: Of the thread.

    Example:
        >>> background, done = BackgroundThread(), []
        >>> background.submit(lambda: done.append("row"))
        >>> background.close()
        >>> done
        ['row']
    """

    def __init__(self, *, max_waiting: int = MAX_WAITING, name: str = "rlwandb") -> None:
        self._max_waiting = max_waiting
        self._name = name
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: deque[Future[None]] = deque()
        self._errors: list[Exception] = []

    def submit(self, call: Callable[[], None]) -> None:
        """Has a call made after those before it."""
        while self._under_way and (self._under_way[0].done() or len(self._under_way) >= self._max_waiting):
            self._take_oldest()
        self._thread = self._thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
        self._under_way.append(self._thread.submit(call))

    def _take_oldest(self) -> None:
        error = self._under_way[0].exception()
        self._under_way.popleft()
        if isinstance(error, Exception):
            self._errors.append(error)

    def errors(self) -> list[Exception]:
        """What calls that are known to be over have raised; each is given once."""
        errors, self._errors = self._errors, []
        return errors

    def close(self) -> None:
        """Waits for all calls and ends the thread; a later call starts another."""
        while self._under_way:
            self._take_oldest()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
