"""The protocol between the callbacks and a tracker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from rlwandb_callbacks.core.values import Value
from rlwandb_callbacks.tracking.wait_limit import WaitLimit


class Tracker(Protocol):
    """Writes rows of values; ranks and schedules are the callers' concern."""

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Writes one row.

        Args:
            axes: Counters of the row by their keys (``trainer/global_step``, ``time/env_steps``, …).
            values: Values by key; empty if only the axes are to be written.
        """

    def flush(self) -> None:
        """Returns once no row is held back in this process."""


@runtime_checkable
class AlertingTracker(Protocol):
    """A tracker that can also notify its user at once."""

    def alert(self, title: str, text: str, level: str) -> None:
        """Sends an alert.

        Args:
            title: Less than 64 characters.
            text: Description of what was measured.
            level: ``INFO``, ``WARN`` or ``ERROR``.
        """


@runtime_checkable
class SharedTracker(Protocol):
    """A tracker to which the user's code may log rows too."""

    def dropped_row(self) -> str | None:
        """Describes the first row of the user that was dropped because of ours; None if there was none."""


@runtime_checkable
class ObservingTracker(Protocol):
    """A tracker that knows what the user's code logs to the same place."""

    def keys_of_others(self) -> Collection[str]:
        """Returns the keys, as they are written, of all rows that the user's code has logged."""


@runtime_checkable
class FileTracker(Protocol):
    """A tracker that writes files, and the rows that name them, on a thread of its own."""

    def wait(self, limit: WaitLimit) -> int:
        """Waits for these rows, as long as the limit allows; returns how many are not written."""

    def errors(self) -> list[Exception]:
        """Returns the errors of values and files that no call has raised yet, each of them once."""
