"""When to log."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    _next: int = field(init=False, repr=False, compare=False)  # the smallest count at which it fires

    def __post_init__(self) -> None:
        self._move_on(self.last)

    def _move_on(self, count: int) -> None:
        self.last = count
        self._next = (count // self.interval + 1) * self.interval

    def due(self, count: int) -> bool:
        """Tells whether a multiple of the interval lies in ``(last, count]``, and moves on if so.

        Args:
            count: The counter now; never decreasing between two calls.
        """
        if count < self._next:
            return False
        self._move_on(count)
        return True

    def would_fire(self, count: int) -> bool:
        """Answers like :meth:`due` without moving on."""
        return count >= self._next
