"""When to log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Every:
    """Fires once for every multiple of ``interval`` that a counter reaches or passes.

    Counters in reinforcement learning jump (several optimizers, several environments), so that ``count % interval``
    would miss most of its moments.

    Args:
        interval: In the counter's own unit, ≥ 1.
        last: The counter at the latest firing or at the start.

    Example:
        >>> every = Every(10)
        >>> [count for count in (4, 8, 12, 16, 20, 45) if every.due(count)]
        [12, 20, 45]
    """

    interval: int
    last: int = 0

    def due(self, count: int) -> bool:
        """Tells whether a multiple of the interval lies in ``(last, count]``, and moves on if so.

        Args:
            count: The counter now; never decreasing between two calls.
        """
        if not self.would_fire(count):
            return False
        self.last = count
        return True

    def would_fire(self, count: int) -> bool:
        """Answers like :meth:`due` without moving on."""
        return count // self.interval > self.last // self.interval
