"""The protocol between the callbacks and a tracker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from rlwandb_callbacks.core.values import Value
from rlwandb_callbacks.tracking.wait_limit import WaitLimit


class Tracker(Protocol):
    """Writes rows of values; ranks and schedules are the callers' concern.

    A tracker that has no method ``close`` is used all the same.
    """

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Writes one row.

        The call may come from another thread than the one that made the tracker: rows with histograms of gradients
        (``gradients.method: fused``) come from the thread that computes them. If a call from another thread fails, the
        tracker may be bound to its thread: this row is passed again, on the thread of the training, and so are all
        later ones. So write a row as a whole or not at all.

        One callback, or a group of callbacks, never makes two calls at the same time; several that are used alone and
        share a tracker may, so use a lock if it is not safe for several threads. An exception on the thread of the
        training is one warning, and costs this row only.

        Args:
            axes: Counters of the row by their keys (``trainer/global_step``, ``time/env_steps``, …).
            values: Values by key; empty if only the axes are to be written.
        """

    def flush(self) -> None:
        """Returns once no row is held back in this process."""

    def close(self) -> None:
        """Releases what the tracker holds, such as files and connections.

        It is called on the thread of the training at the end of each ``fit`` and ``validate``, also after an exception,
        after the last ``flush``, when no callback uses the tracker any more. A later ``fit`` may write again.
        """


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
class SteppedTracker(Protocol):
    """A tracker that gives rows of the user's code the axes of the latest row before them."""

    def start_at(self, axes: Mapping[str, float]) -> None:
        """Sets the axes of rows that come before the first row of :meth:`Tracker.write`; writes no row of its own."""


@runtime_checkable
class FileTracker(Protocol):
    """A tracker that writes files, and the rows that name them, on a thread of its own."""

    def wait(self, limit: WaitLimit) -> int:
        """Waits for these rows, as long as the limit allows; returns how many are not written."""

    def errors(self) -> list[Exception]:
        """Returns the errors of values and files that no call has raised yet, each of them once."""
