"""Limits how long the end of a training waits."""

from __future__ import annotations

import time
from collections.abc import Callable

CHECK_SECONDS = 0.25


def _never() -> bool:
    return False


class WaitLimit:
    """Time that is left for everything that the end of a training waits for, in all.

    The clock starts when it is made. Callers wait in turns of :meth:`turn_seconds`, and stop when these are zero.

    Args:
        max_seconds: ≥ 0.
        is_interrupted: Returns whether nothing may be waited for any more, as the system ends the process.

    Example:
        >>> WaitLimit(600.0, is_interrupted=lambda: True).seconds_left()
        0.0
    """

    def __init__(self, max_seconds: float, is_interrupted: Callable[[], bool] = _never) -> None:
        self.max_seconds = max_seconds
        self.is_interrupted = is_interrupted
        self._deadline = time.monotonic() + max_seconds

    def seconds_left(self) -> float:
        """Returns how long may still be waited, ≥ 0."""
        return 0.0 if self.is_interrupted() else max(0.0, self._deadline - time.monotonic())

    def turn_seconds(self) -> float:
        """Returns how long to wait before asking again, so that an interruption is noticed."""
        return min(self.seconds_left(), CHECK_SECONDS)
