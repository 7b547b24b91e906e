"""How long logging holds training up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rlwandb_callbacks.core.values import Scalar


class LoggingTimer:
    """Adds up the wall time of blocks; a block inside another is counted once.

    What a worker does meanwhile is not counted, nor the few microseconds that each batch costs between two rows.

    Args:
        clock: Gives the time in seconds.

    Attributes:
        seconds: The sum since the start.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._started = clock()
        self._is_running = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Counts a block."""
        if self._is_running:
            yield
            return
        self._is_running, start = True, self._clock()
        try:
            yield
        finally:
            self._is_running = False
            self.seconds += self._clock() - start

    def values(self) -> dict[str, Scalar]:
        """``time/logging_seconds``, and ``time/logging_share`` of the time since the start, in [0, 1]."""
        elapsed = self._clock() - self._started
        share = min(1.0, self.seconds / elapsed) if elapsed > 0 else 0.0
        return {"time/logging_seconds": Scalar(self.seconds), "time/logging_share": Scalar(share)}
