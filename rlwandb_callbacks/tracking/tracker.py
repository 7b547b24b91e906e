"""The port between callbacks and a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from rlwandb_callbacks.core.values import Value


class Tracker(Protocol):
    """Takes rows of values. It knows neither ranks nor schedules: both are the callers'."""

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Writes one row.

        Args:
            axes: The counters at this moment, by their keys (``trainer/global_step``, ``time/env_steps``, …).
            values: What to log, by key; may be empty where a row is due all the same.
        """

    def flush(self) -> None:
        """Returns once nothing is held back in this process."""


@runtime_checkable
class AlertingTracker(Protocol):
    """What a tracker may do besides: tell somebody at once."""

    def alert(self, title: str, text: str, level: str) -> None:
        """Sends an alert.

        Args:
            title: Less than 64 characters.
            text: What was seen.
            level: ``INFO``, ``WARN`` or ``ERROR``.
        """
