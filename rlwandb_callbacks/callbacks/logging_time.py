"""Measures how long logging holds up training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rlwandb_callbacks.core.values import Scalar


class LoggingTimer:
    """Sums the wall time of blocks; a block inside another one counts once.

    The time of the worker is not counted, nor the few microseconds of each batch between two rows.

    Args:
        clock: Returns the time in seconds.

    Attributes:
        seconds: Sum since the start of the training.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._is_running = False
        self.reset()

    def __getstate__(self) -> dict[str, Any]:
        """A copy that is made inside a block measures the next one."""
        return {**vars(self), "_is_running": False}

    def reset(self) -> None:
        """Starts again for a new training."""
        self.seconds = 0.0
        self._started = self._clock()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measures a block."""
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
        """Returns ``time/logging_seconds``, and ``time/logging_share``: its fraction of the time since the start."""
        elapsed = self._clock() - self._started
        fraction = min(1.0, self.seconds / elapsed) if elapsed > 0 else 0.0
        return {"time/logging_seconds": Scalar(self.seconds), "time/logging_share": Scalar(fraction)}
