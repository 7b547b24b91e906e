"""Reader of W&B runs from their local files."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rlwandb_callbacks.tracking.run_files.history import ABSENT, history_rows, history_values
from rlwandb_callbacks.tracking.run_files.items import apply_items, parse_record, remove_items, value_of
from rlwandb_callbacks.tracking.run_files.media import media_paths
from rlwandb_callbacks.tracking.run_files.metric_definitions import MetricDefinition, add_definition
from rlwandb_callbacks.tracking.run_files.record_log import RecordLog
from rlwandb_callbacks.tracking.run_files.run_folders import find_run_files, in_order
from rlwandb_callbacks.tracking.run_files.series import Series, SeriesReader


@dataclass(frozen=True)
class AlertRecord:
    """Arguments of ``run.alert``.

    Args:
        title: Title of the alert.
        text: Text of the alert.
        level: ``INFO``, ``WARN`` or ``ERROR``.
    """

    title: str
    text: str
    level: str


@dataclass
class OfflineRun:
    """The content of a run, from the files that W&B writes on this machine.

    A run that was resumed has several folders, which are joined in the order in which they were started. No row is
    left out: where training went back to a checkpoint, rows of the same update occur in both. ``_step`` counts within a
    folder and may begin anywhere: at 0 again in each folder of an offline run, later in an online or forked one.

    Rows are read from the files when they are asked for, and only the keys asked for are decoded. ``history`` and
    ``summary`` are kept once they were read.

    Attributes:
        folder: Folder of the run; the newest one if there are several.
        folders: All folders that were read, the oldest first.
        run_id: Id of the run; empty if the file does not contain it yet.
        config: Config of the run, as plain values.
        metrics: Metric definitions by key or pattern.
        files: Paths of the files of the run, relative to ``folder / "files"`` of the folder that they are in.
        alerts: Alerts in the order in which they were sent.
        exit_code: Exit code; None if the run is not finished or was killed.
    """

    folder: Path
    folders: list[Path] = field(default_factory=list)
    run_id: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, MetricDefinition] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    alerts: list[AlertRecord] = field(default_factory=list)
    exit_code: int | None = None
    _logs: list[RecordLog] = field(default_factory=list, repr=False)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields one dict per row, in the order of logging; media and histograms are W&B's own dicts."""
        for log in self._logs:
            yield from history_rows(log.rows())

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """All :meth:`rows`; takes about a kilobyte of memory per row."""
        return list(self.rows())

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Latest summary, as W&B keeps it.

        Do not take best values or media from it: a NaN stays in ``summary="max"``, a resume resets it, and fields of
        media of different rows are mixed. The rows have them.
        """
        summary: dict[str, Any] = {}
        for log in self._logs:
            for record in log.summaries():
                change = parse_record(record).summary
                apply_items(summary, change.update)
                remove_items(summary, change.remove)
        return summary

    def column(self, key: str) -> list[Any]:
        """Returns the values of a key, in the order of logging."""
        return [value for log in self._logs for (value,) in history_values(log.rows(), [key]) if value is not ABSENT]

    def columns(self, *keys: str) -> dict[str, list[Any]]:
        """Returns the values of several keys, which are read together."""
        columns: dict[str, list[Any]] = {key: [] for key in keys}
        appends = [column.append for column in columns.values()]
        for log in self._logs:
            for values in history_values(log.rows(), columns):
                for append, value in zip(appends, values, strict=True):
                    if value is not ABSENT:
                        append(value)
        return columns

    def series(self, *keys: str, axis: str = "trainer/global_step") -> dict[str, Series]:
        """Returns the numbers of several keys with their positions on an axis, as compact arrays.

        W&B adds an axis that was defined with ``step_sync`` to rows without it. The value is the last logged one, but 0
        before the first, so that after a resume, rows logged before the first update seem to belong to update 0.
        A position of 0 is therefore taken as unknown where earlier rows of the run, or the summary that it was resumed
        with, were beyond 0, until a folder has its first position above 0.

        Args:
            keys: Keys; other values than numbers are left out.
            axis: Key of the x axis.

        Returns:
            One series per key.
        """
        reader = SeriesReader(keys, axis)
        for log in self._logs:
            resumed = [parse_record(record).summary for record in log.summaries(before_first_row=True)]
            reader.add_folder(log.rows(), [value_of(summary.update, axis, None) for summary in resumed])
        return reader.series()

    def media(self, key: str) -> list[Path]:
        """Returns the paths of the images, videos or tables of a key, in the order of logging."""
        return [
            log.path.parent / "files" / path
            for log in self._logs
            for (value,) in history_values(log.rows(), [key])
            for path in media_paths(value)
        ]


def read_offline_run(
    path: str | Path, *more_paths: str | Path, run_id: str | None = None, wait_seconds: float = 5.0
) -> OfflineRun:
    """Reads a run from its local files, without W&B's server or command line.

    W&B may return from ``finish`` a moment before the file is complete, so a run without an exit record is read again
    until ``wait_seconds`` are over. What an unfinished or killed run has written is returned then.

    Args:
        path: Folder of a run or its ``.wandb`` file, which is read alone; or a folder ``wandb/`` with runs, or the one
            around it, of which the run that was started last is read, with all its folders; copies of a folder are
            read once.
        more_paths: More folders or files of the same run, in any order.
        run_id: Id of the run to read from a folder with runs, instead of the newest.
        wait_seconds: Longest time in seconds to wait for the exit record of the newest folder, ≥ 0.

    Raises:
        FileNotFoundError: If there is no ``.wandb`` file.
        ValueError: If a file is not a W&B run file, if the paths are of different runs, or of another than ``run_id``.

    Warns:
        UserWarning: If a file is damaged; the records that are intact are read.
    """
    found = [file for place in (path, *more_paths) for file in find_run_files(Path(place), run_id)]
    parts = [_Part(RecordLog(file)) for file in in_order(found)]
    newest = parts[-1]
    deadline = time.monotonic() + wait_seconds
    while not newest.has_ended and time.monotonic() < deadline:
        time.sleep(0.01)
        newest.read_new()
    logs = [part.log for part in parts]
    _warn_of_damage(logs)
    folders = [log.path.parent for log in logs]
    run = OfflineRun(folders[-1], folders, _only_id({part.run_id for part in parts} - {""}, run_id), _logs=logs)
    for part in parts:
        run.exit_code = None
        for record in part.records:
            _add(run, record)
    return run


def _only_id(ids: set[str], wanted: str | None) -> str:
    if len(ids) > 1:
        raise ValueError(
            f"The paths are of different runs, {', '.join(sorted(ids))}: give folders of one run, or its run_id."
        )
    found = next(iter(ids), "")
    if wanted is not None and found not in ("", wanted):
        raise ValueError(f"The run is {found}, but run_id is {wanted!r}: give the folder of that run, or no run_id.")
    return found


def _warn_of_damage(logs: list[RecordLog]) -> None:
    for log in logs:
        if log.damaged_places:
            warnings.warn(
                f"{log.path} is damaged in {log.damaged_places} place(s), where a checksum or header is wrong. Rows "
                "and other records there are left out; copy the file again if the original is intact.",
                stacklevel=3,
            )


class _Part:
    """Parsed records of one file, without history and summary."""

    def __init__(self, log: RecordLog) -> None:
        self.log = log
        self.records: list[Any] = []
        self.read_new()

    def read_new(self) -> None:
        self.records += [parse_record(record) for record in self.log.read_new()]

    @property
    def has_ended(self) -> bool:
        return any(record.HasField("exit") for record in self.records)

    @property
    def run_id(self) -> str:
        return next((record.run.run_id for record in self.records if record.HasField("run")), "")


def _add(run: OfflineRun, record: Any) -> None:
    match record.WhichOneof("record_type"):
        case "run":
            _change_config(run, record.run.config)
        case "config":
            _change_config(run, record.config)
        case "metric":
            add_definition(run.metrics, record.metric)
        case "files":
            run.files += [file.path for file in record.files.files]
        case "alert":
            run.alerts.append(AlertRecord(record.alert.title, record.alert.text, record.alert.level))
        case "exit":
            run.exit_code = record.exit.exit_code


def _change_config(run: OfflineRun, change: Any) -> None:
    apply_items(run.config, change.update)
    remove_items(run.config, change.remove)
