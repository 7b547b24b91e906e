"""The rows of a session: what is due at one step becomes one row of the tracker, with the names of a preset."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.rows import Rows, Submit
from rlwandb_callbacks.callbacks.session_jobs import SessionJobs, advice_at_end
from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.key_names import Naming
from rlwandb_callbacks.core.values import Value
from rlwandb_callbacks.tracking.tracker import FileTracker, SharedTracker, SteppedTracker, Tracker
from rlwandb_callbacks.tracking.tracker_users import release_tracker, use_tracker
from rlwandb_callbacks.tracking.wait_limit import WaitLimit

WORK = "Writing a row"


class SessionRows:
    """Writes the rows of a training to its tracker; an error in a row is reported, and costs no later row.

    Args:
        cfg: Settings of the names and of the end of a training.
        errors: Gets errors and warnings.
        jobs: Its count of skipped work is written when it has changed, as is that of errors.

    Attributes:
        tracker: Gets the rows; None if nothing is written.
        naming: Names of the preset; None for our own.
        axes: Axes of the latest row, by our own keys.
    """

    def __init__(self, cfg: WandbRLConfig, errors: ErrorPolicy, jobs: SessionJobs) -> None:
        self._cfg, self._errors, self._jobs = cfg, errors, jobs
        self.tracker: Tracker | None = None
        self._sets_axes = False
        self._begin_use()
        self.start()

    def _begin_use(self) -> None:
        """Takes the present thread as that of the training, on which a tracker that is bound to its thread works."""
        self._training_thread = threading.get_ident()
        self._writes_on_other_threads = True
        self._returned: deque[tuple[Mapping[str, float], Mapping[str, Value]]] = deque()

    def use(self, tracker: Tracker, *, sets_axes: bool = False) -> None:
        """Writes to a tracker until :meth:`finish`; ``sets_axes`` says that :meth:`start_at` may set its axes."""
        self._begin_use()
        self.tracker, self._sets_axes = use_tracker(tracker), sets_axes

    def start(self) -> None:
        """Starts again for a new training."""
        self.naming = Naming(self._cfg.naming) if self._cfg.naming else None
        self.axes: dict[str, float] = {"trainer/global_step": 0}
        self._rows = self._new_rows()

    def _new_rows(self) -> Rows:
        return Rows(self._write, lambda: {"logging/errors": self._errors.count, "logging/skipped": self._jobs.skipped})

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the tracker and the rows that are not written."""
        return {name: value for name, value in vars(self).items() if name not in ("tracker", "_rows", "_returned")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores rows that have no tracker yet."""
        self.__dict__.update(state)
        self.tracker = None
        self._begin_use()
        self._rows = self._new_rows()

    def start_at(self, read_axes: Callable[[], Mapping[str, float]]) -> None:
        """Sets the axes of what the user's code logs before the first row of a training that does not begin at 0."""
        tracker: object = self.tracker
        if self._sets_axes and isinstance(tracker, SteppedTracker):
            self._sets_axes = False
            with self._errors.guard("Setting the axes of the first row"):
                axes = read_axes()
                if any(axes.values()):
                    tracker.start_at(axes if self.naming is None else self.naming.axes(axes, ()))

    def add(self, axes: Mapping[str, float], values: Mapping[str, Value], *, is_present: bool = True) -> None:
        """Adds values to the row of their step; ``is_present`` says that this is the present step."""
        self.axes = dict(axes)
        add = self._rows.add if is_present else self._rows.add_late
        add(self.axes, values)

    def add_result(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Adds values of a job that was submitted at an earlier step, which are no latest row."""
        self._rows.add_late(axes, values)

    def writer(self, axes: Mapping[str, float], submit: Submit) -> Callable[[Mapping[str, Value]], None]:
        """Returns a function that adds values to the row of the present step; see :meth:`Rows.writer`."""
        self.axes = dict(axes)
        return self._rows.writer(self.axes, submit)

    def rename(self, rename: Callable[[str], str]) -> None:
        """Renames values, by our own keys, in the row of the present step if it is not written yet."""
        if self._rows.row is not None:
            self._rows.row.rename(rename)

    def close_row(self) -> None:
        """Writes the row of the present step, if there is one."""
        if self._returned:
            with self._errors.guard(WORK):
                self._write_returned()
        if self._rows.row is not None:
            with self._errors.guard(WORK):
                self._rows.close_row()
            self._warn_of_dropped_row()

    def finish(self, limit: WaitLimit) -> None:
        """Writes what is left, see :meth:`flush`, and ends the use of the tracker."""
        try:
            self.flush(limit)
        finally:
            tracker, self.tracker = self.tracker, None
            if tracker is not None:
                with self._errors.guard("Closing the tracker"):
                    release_tracker(tracker)

    def flush(self, limit: WaitLimit) -> None:
        """Writes what is left, and waits for files as long as the limit allows."""
        if self.tracker is None:
            return
        self._rows.flush()
        self._write_returned()
        self._wait_for_files(limit)
        if self._rows.has_new_counts:
            self._rows.add(self.axes, {})
            self._rows.flush()
        self._warn_of_dropped_row()
        self.tracker.flush()

    def _wait_for_files(self, limit: WaitLimit) -> None:
        tracker: object = self.tracker
        if isinstance(tracker, FileTracker):
            left = tracker.wait(limit)
            self._report_file_errors()
            if left:
                advice = advice_at_end(limit, self._cfg.finish_seconds)
                self._errors.warn_once(
                    "rows with tables, pictures or videos were not written before the end of training "
                    f"({left} of them) and are lost; all numbers are kept. {advice}",
                    kind="abandoned rows",
                )

    def _write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        if self.tracker is None:
            return
        if self.naming is not None:
            axes, values = self.naming.axes(axes, values), self.naming.row(values)
        if threading.get_ident() == self._training_thread:
            self._write_returned()
            self._write_here(self.tracker, axes, values)
        elif self._writes_on_other_threads:
            self._write_on_other_thread(self.tracker, axes, values)
        else:
            self._returned.append((axes, values))

    def _write_here(self, tracker: Tracker, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        try:
            tracker.write(axes, values)
        except Exception as error:  # noqa: BLE001  # no guard, whose timer belongs to the training thread
            self._errors.report_error(WORK, error)
        self._report_file_errors()

    def _write_on_other_thread(self, tracker: Tracker, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Writes a row; if that fails, it and all later ones of other threads are left to the training thread."""
        if isinstance(tracker, FileTracker):  # it raises errors of single values after it has written all others
            self._write_here(tracker, axes, values)
            return
        try:
            tracker.write(axes, values)
        except Exception:  # noqa: BLE001  # it may be bound to its thread; the second call reports any other error
            self._writes_on_other_threads = False
            self._returned.append((axes, values))

    def _write_returned(self) -> None:
        """Writes, on the training thread, the rows that could not be written on others."""
        while self._returned and self.tracker is not None:
            self._write_here(self.tracker, *self._returned.popleft())

    def _report_file_errors(self) -> None:
        tracker: object = self.tracker
        for error in tracker.errors() if isinstance(tracker, FileTracker) else ():
            self._errors.report_error(WORK, error)

    def _warn_of_dropped_row(self) -> None:
        tracker: object = self.tracker
        message = tracker.dropped_row() if isinstance(tracker, SharedTracker) else None
        if message is not None:
            self._errors.warn_once(message, kind="dropped row")
