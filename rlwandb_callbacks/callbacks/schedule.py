"""Schedules by a counter."""

from __future__ import annotations


class Every:
    """Fires once for every multiple of ``interval`` that a counter reaches or passes.

    Counters in reinforcement learning jump (several optimizers, several environments), so ``count % interval == 0``
    would miss most multiples.

    Args:
        interval: Distance of two multiples, in the unit of the counter, ≥ 1.
        last: Count at which it fired last, or at the start.

    Example:
        >>> every = Every(10)
        >>> [count for count in (4, 8, 12, 16, 20, 45) if every.due(count)]
        [12, 20, 45]
    """

    def __init__(self, interval: int, *, last: int = 0) -> None:
        self._interval = interval
        self._next = (last // interval + 1) * interval  # smallest count at which it fires

    def due(self, count: int) -> bool:
        """Returns whether it fires, and if so, waits for the next multiple; ``count`` never decreases between calls."""
        if count < self._next:
            return False
        self._next = (count // self._interval + 1) * self._interval
        return True

    def would_fire(self, count: int) -> bool:
        """Returns what :meth:`due` would, and changes nothing."""
        return count >= self._next
