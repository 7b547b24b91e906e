"""Writes rows to a W&B run."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, MutableSequence
from functools import partial
from typing import Any

from rlwandb_callbacks.core.values import Value
from rlwandb_callbacks.tracking.dropped_rows import DroppedRows
from rlwandb_callbacks.tracking.row_thread import RowThread
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from rlwandb_callbacks.tracking.wandb_values import rows_of_files, split_files, store, to_wandb

CONSTANTS = ("episodes_count", "averaged_weights")  # last parts of keys whose charts are lines without a change
TOO_MANY_WAIT = (
    "{keys} were left out, as {count} rows with tables, pictures and videos wait to be written. The disk or W&B's "
    "server is too slow for them: evaluate less often, or show fewer videos (videos.select)."
)


class WandbTracker:
    """Writes each row with one ``run.log``, the axes as values in it.

    Tables, pictures and videos are files. They are written on a thread of their own, in rows of their own: neither an
    error of a file nor a slow disk costs the numbers, and training waits for none of them. Where the user's code logs
    with ``step=``, the files of a row that has numbers are written at once and named in that row instead, as each
    further row may cost the user one.

    No row is logged with ``step=`` or ``commit=False``: W&B drops rows with a step below its latest one.

    Args:
        run: An open run.
        step_metric: Key of the default x axis of our charts. It is defined for each exact key when that key first
            appears, as W&B resolves overlapping patterns in no fixed order. Axes and constants get no chart by default.
        step_of_group: Key of another x axis by group, for the keys of groups that have one.
    """

    def __init__(self, run: Any, *, step_metric: str, step_of_group: Mapping[str, str] | None = None) -> None:
        self.run = run
        self._step_metric, self._step_of_group = step_metric, dict(step_of_group or {})
        self._defined: set[str] = set()
        self._latest_axes: dict[str, float] = {}
        self._dropped_rows = DroppedRows(run)
        self._bookkeeping = threading.Lock()
        self._files = RowThread()
        self._errors: deque[Exception] = deque()  # not raised yet, from both threads

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Writes one row; see :class:`rlwandb_callbacks.tracking.tracker.Tracker`.

        Raises:
            Exception: The first error of a value, or of a file of an earlier row, after all others were written.
        """
        errors = self.errors()
        held, files = split_files(values)
        entries = converted(held, lambda _, value: to_wandb(value), errors)
        if held and files and self._dropped_rows.user_sets_steps:
            first, *parts = rows_of_files(files)
            entries |= self._stored(axes, first, errors)
        else:
            parts = rows_of_files(files)
        if entries or not files:
            self._log(axes, entries)
        if parts and not self._files.submit(partial(self._write_files, axes, parts)):
            message = TOO_MANY_WAIT.format(keys=", ".join(sorted(files)), count=self._files.pending)
            errors.append(RuntimeError(message))
        self._raise_first(errors)

    def _write_files(self, axes: Mapping[str, float], parts: Collection[Mapping[str, Value]]) -> None:
        """Writes rows of files, on their thread."""
        for part in parts:
            entries = self._stored(axes, part, self._errors)
            if entries:
                self._log(axes, entries)

    def _stored(
        self, axes: Mapping[str, float], files: Mapping[str, Value], errors: MutableSequence[Exception]
    ) -> dict[str, Any]:
        step = max(0, int(axes.get("trainer/global_step", 0)))
        return converted(files, lambda key, value: store(self.run, key, value, step=step), errors)

    def _log(self, axes: Mapping[str, float], entries: Mapping[str, Any]) -> None:
        with self._bookkeeping:
            self._define(axes, entries)
        with self._dropped_rows.ours():
            self.run.log({**axes, **entries})  # outside the lock: a large table waits for W&B's server
        with self._bookkeeping:
            late = {key: latest for key, latest in self._latest_axes.items() if key in axes and latest > axes[key]}
            self._latest_axes |= {**axes, **late}
        if late:
            self._keep_in_summary(late)

    def _keep_in_summary(self, axes: Collection[str]) -> None:
        """Keeps the latest axes in the summary after a row that came late.

        An assignment would end an aggregation that the user has defined for an axis, whose value is a mapping such as
        ``{"max": 9}``, or hold one that the user keeps out of the summary.
        """
        summary = self.run.summary
        plain = [key for key in axes if isinstance(summary.get(key), int | float)]
        with self._bookkeeping:
            summary.update({key: self._latest_axes[key] for key in plain})

    def start_at(self, axes: Mapping[str, float]) -> None:
        """Sets the axes of rows that the user's code logs before our first one; W&B fills in 0 otherwise.

        The axes are no row of their own, which would move W&B's step: they are in the next row, whoever logs it.
        """
        with self._bookkeeping:
            self._define(axes, ())
        with self._dropped_rows.ours():
            self.run.log(dict(axes), commit=False)

    def _define(self, axes: Mapping[str, float], entries: Collection[str]) -> None:
        for key in axes.keys() - self._defined:
            self.run.define_metric(key, hidden=True)
        for key in set(entries) - self._defined:
            axis = self._step_of_group.get(key.split("/")[0], self._step_metric)
            hidden = True if key.rpartition("/")[2] in CONSTANTS else None
            self.run.define_metric(key, step_metric=axis if axis in axes else "trainer/global_step", hidden=hidden)
        self._defined |= axes.keys() | set(entries)

    def dropped_row(self) -> str | None:
        """Describes the first row of the user that W&B dropped because of ours; None if there was none."""
        return self._dropped_rows.message

    def keys_of_others(self) -> Collection[str]:
        """Returns the keys of all rows that the user's code has logged to the run since it was opened here."""
        return self._dropped_rows.keys

    def alert(self, title: str, text: str, level: str) -> None:
        """Sends an alert by e-mail or message, by the settings of the W&B account; an offline run stores it."""
        self.run.alert(title=title, text=text, level=level)

    def wait(self, limit: WaitLimit) -> int:
        """Waits for the rows with files, as long as the limit allows; returns how many are not written."""
        return self._files.wait(limit)

    def flush(self) -> None:
        """Ends the search for dropped rows; ``run.log`` passes each row to W&B's process before it returns.

        Raises:
            Exception: The first error of a file that no later row has reported.
        """
        self._dropped_rows.close()
        self._raise_first(self.errors())

    def close(self) -> None:
        """Ends the search for dropped rows, also where :meth:`flush` has not; the run stays open."""
        self._dropped_rows.close()

    def errors(self) -> list[Exception]:
        """Returns the errors that no method has raised yet, each of them once."""
        self._errors.extend(self._files.errors())
        return [self._errors.popleft() for _ in range(len(self._errors))]

    def _raise_first(self, errors: list[Exception]) -> None:
        if errors:
            first, *others = errors
            self._errors.extend(others)
            raise first


def converted(
    values: Mapping[str, Value], convert: Callable[[str, Value], Any], errors: MutableSequence[Exception]
) -> dict[str, Any]:
    """Converts each value apart, as an error of one must not cost another; adds the errors to ``errors``."""
    entries: dict[str, Any] = {}
    for key, value in values.items():
        try:
            entries[key] = convert(key, value)
        except Exception as error:  # noqa: BLE001, PERF203  # see above
            errors.append(error)
    return entries
