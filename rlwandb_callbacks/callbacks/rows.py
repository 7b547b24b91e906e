"""Rows of one training: what is due at one step is written as one row."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

from rlwandb_callbacks.core.values import Scalar, Value

WriteRow: TypeAlias = Callable[[Mapping[str, float], Mapping[str, Value]], None]
"""Function of the axes and the values of a row, both by our own keys."""
Submit: TypeAlias = Callable[[Callable[[], None]], None]
"""Runs a call later, on another thread."""
STEP_AXES = ("trainer/global_step", "time/updates")
REPEATED_KEYS = {"time/logging_seconds", "time/logging_share"}  # the latest value counts


class Row:
    """A row that is not written yet; values may come from another thread.

    Args:
        axes: Axes of the row, by our own keys.
        values: Its first values.
    """

    def __init__(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        self.axes, self.values = dict(axes), dict(values)
        self.submit: Submit | None = None  # writes on the thread from which the missing values come
        self.is_complete = True
        self._lock = threading.Lock()

    def add(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> bool:
        """Adds values of the step of this row that replace none of it; returns whether they are."""
        if any(self.axes.get(key) != axes.get(key) for key in STEP_AXES):
            return False
        with self._lock:
            fits = self.values.keys() & values.keys() <= REPEATED_KEYS
            self.values |= values if fits else {}
        return fits

    def rename(self, rename: Callable[[str], str]) -> None:
        """Changes the keys of the values."""
        with self._lock:
            self.values = {rename(key): value for key, value in self.values.items()}

    def wait_for_values(self, submit: Submit) -> None:
        """Keeps the row back until :meth:`complete` is called."""
        self.is_complete, self.submit = False, submit

    def complete(self, values: Mapping[str, Value]) -> None:
        """Adds the values that were missing."""
        with self._lock:
            self.values |= values
        self.is_complete = True


class Rows:
    """Collects the values that are due at one step, and writes them as one row.

    Every row moves W&B's own step, and W&B drops rows that the user logs with a smaller ``step=``. So a training has at
    most one row a batch, apart from values that come later, such as videos. Rows are written in the order of their
    steps: a row whose values are missing holds back those behind it, and training does not wait for it.

    Args:
        write: Writes a row, from the thread that has its last values.
        counts: Returns the counts of errors and of skipped work by key, which are in a row when they have changed.

    Attributes:
        row: Row of the present step; None if nothing is held back.
    """

    def __init__(self, write: WriteRow, counts: Callable[[], Mapping[str, int]]) -> None:
        self._write, self._counts = write, counts
        self._counts_written: dict[str, float] = {}
        self.row: Row | None = None
        self._closed: deque[Row] = deque()
        self._writing = threading.Lock()

    @property
    def has_new_counts(self) -> bool:
        """Whether a count has changed since it was written last."""
        return bool(self._new_counts())

    def _new_counts(self) -> dict[str, Scalar]:
        counts = self._counts().items()
        return {key: Scalar(count) for key, count in counts if count > self._counts_written.get(key, 0)}

    def add(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Adds values of the present step to its row."""
        if self.row is None or not self.row.add(axes, values):
            self.close_row()
            self.row = Row(axes, values)

    def add_late(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Adds values of any step to its row if that is not written yet, else writes a row of their own."""
        if self.row is None or not self.row.add(axes, values):
            self._close(Row(axes, values))

    def writer(self, axes: Mapping[str, float], submit: Submit) -> Callable[[Mapping[str, Value]], None]:
        """Returns a function that adds values to the row of the present step later, on the thread of ``submit``.

        It must be called once. The row is written on that thread, if it can be.
        """
        self.add(axes, {})
        row = self.row
        assert row is not None
        row.wait_for_values(submit)

        def write(values: Mapping[str, Value]) -> None:
            row.complete(values)
            self._write_complete_rows()

        return write

    def close_row(self) -> None:
        """Writes the values of the present step; later ones are in another row."""
        row, self.row = self.row, None
        if row is not None:
            self._close(row)

    def flush(self) -> None:
        """Writes all rows whose values are there."""
        self.close_row()
        self._write_complete_rows()

    def _close(self, row: Row) -> None:
        counts = self._new_counts()
        self._counts_written |= {key: count.value for key, count in counts.items()}
        row.add(row.axes, counts)
        self._closed.append(row)
        first = self._first()
        if first is not None and first.submit is None:
            self._write_complete_rows()
        elif first is row and row.submit is not None and row.is_complete:
            row.submit(self._write_complete_rows)  # else a call on that thread is still to come

    def _write_complete_rows(self) -> None:
        """Writes rows in order until one lacks values, unless another thread does so."""
        while self._is_next_complete() and self._writing.acquire(blocking=False):
            try:
                while self._is_next_complete():
                    row = self._closed.popleft()
                    self._write(row.axes, row.values)
            finally:
                self._writing.release()

    def _is_next_complete(self) -> bool:
        first = self._first()
        return first is not None and first.is_complete

    def _first(self) -> Row | None:
        try:
            return self._closed[0]
        except IndexError:  # another thread may take the last row at any time
            return None
