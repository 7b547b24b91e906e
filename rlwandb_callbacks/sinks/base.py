"""The port between callbacks and a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rlwandb_callbacks.core.values import Value


class Sink(Protocol):
    """Takes rows of values. It knows neither ranks nor schedules: both are the callers'."""

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Writes one row.

        Args:
            axes: The counters at this moment, by their keys (``trainer/global_step``, ``time/env_steps``, …).
            values: What to log, by key; may be empty where a row is due all the same.
        """

    def flush(self) -> None:
        """Returns once nothing is held back in this process."""
