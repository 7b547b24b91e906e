"""Reader of offline W&B runs, which needs neither W&B's server nor its command line.

The file is a log of protobuf records in LevelDB's format: blocks of 32 KiB, and records with a seven-byte header of
checksum, length and type. A record that does not fit into its block is split.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

MAGIC = b":W&B"
HEADER_BYTES = 7
BLOCK_BYTES = 32 * 1024
WHOLE, FIRST, _MIDDLE, LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class MetricDefinition:
    """Arguments of ``run.define_metric`` for a key or pattern.

    Args:
        step_metric: Key of the x axis; empty for none.
        step_sync: Whether W&B adds the axis to rows without it.
        hidden: Whether W&B shows no chart of the key by default.
    """

    step_metric: str
    step_sync: bool
    hidden: bool = False


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
    """The content of an offline run.

    Attributes:
        folder: Folder of the run.
        config: Config of the run, as plain values.
        history: One dict per row, in the order of logging; media and histograms as W&B's own dicts.
        summary: Latest summary.
        metrics: Metric definitions by key or pattern.
        files: Paths of the files of the run, relative to ``folder / "files"``.
        alerts: Alerts in the order in which they were sent.
        exit_code: Exit code; None if the run is not finished or was killed.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, MetricDefinition] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    alerts: list[AlertRecord] = field(default_factory=list)
    exit_code: int | None = None

    def column(self, key: str) -> list[Any]:
        """Returns the values of a key, in the order of logging."""
        return [row[key] for row in self.history if key in row]

    def media(self, key: str) -> list[Path]:
        """Returns the paths of the images, videos or tables of a key, in the order of logging."""
        return [self.folder / "files" / value["path"] for value in self.column(key) if "path" in value]


def read_offline_run(path: str | Path, *, wait_seconds: float = 5.0) -> OfflineRun:
    """Reads an offline run.

    W&B may return from ``finish`` a moment before the file is complete, so a run without an exit record is read again
    until ``wait_seconds`` are over. What an unfinished or killed run has written is returned then.

    Args:
        path: Folder of a run, its ``.wandb`` file, or a folder ``wandb/`` with runs, of which the newest is read.
        wait_seconds: Longest time in seconds to wait for the exit record, ≥ 0.

    Raises:
        FileNotFoundError: If there is no ``.wandb`` file.
        ValueError: If the file is not a W&B run file.
    """
    file = _find_file(Path(path))
    deadline = time.monotonic() + wait_seconds
    while True:
        run = OfflineRun(file.parent)
        for record in _records(file.read_bytes(), file):
            _add(run, record)
        if run.exit_code is not None or time.monotonic() >= deadline:
            return run
        time.sleep(0.01)


def _find_file(path: Path) -> Path:
    if path.suffix == ".wandb" and path.is_file():
        return path
    for pattern in ("*.wandb", "*/*.wandb", "wandb/*/*.wandb"):
        found = sorted(path.glob(pattern), key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1]
    raise FileNotFoundError(f"There is no .wandb file in {path} or in the folder of a run below it.")


def _records(content: bytes, file: Path) -> Iterator[Any]:
    if not MAGIC.startswith(content[: len(MAGIC)]):  # W&B creates an empty file first
        raise ValueError(f"{file} is not a W&B run file: it does not start with {MAGIC!r}.")
    position, parts = HEADER_BYTES, b""
    while position + HEADER_BYTES <= len(content):
        left_in_block = BLOCK_BYTES - position % BLOCK_BYTES
        if left_in_block < HEADER_BYTES:
            position += left_in_block
            continue
        _, size, kind = struct.unpack("<IHB", content[position : position + HEADER_BYTES])
        if kind == 0:
            position += left_in_block
            continue
        body = content[position + HEADER_BYTES : position + HEADER_BYTES + size]
        if len(body) < size:
            return
        position += HEADER_BYTES + size
        parts = body if kind in (WHOLE, FIRST) else parts + body
        if kind in (WHOLE, LAST):
            record: Any = pb.Record()  # type: ignore[attr-defined]  # protobuf creates its classes at run time
            record.ParseFromString(parts)
            yield record


def _add(run: OfflineRun, record: Any) -> None:
    match record.WhichOneof("record_type"):
        case "history":
            run.history.append(_items(record.history.item, {}))
        case "summary":
            _items(record.summary.update, run.summary)
            for item in record.summary.remove:
                run.summary.pop(item.key, None)
        case "run":
            _items(record.run.config.update, run.config)
        case "config":
            _items(record.config.update, run.config)
        case "metric":
            metric = record.metric
            run.metrics[metric.name or metric.glob_name] = MetricDefinition(
                metric.step_metric, metric.options.step_sync, metric.options.hidden
            )
        case "files":
            run.files += [file.path for file in record.files.files]
        case "alert":
            run.alerts.append(AlertRecord(record.alert.title, record.alert.text, record.alert.level))
        case "exit":
            run.exit_code = record.exit.exit_code


def _items(items: Any, into: dict[str, Any]) -> dict[str, Any]:
    for item in items:
        *path, last = list(item.nested_key) or [item.key]
        nested = into
        for key in path:
            nested = nested.setdefault(key, {})
        nested[last] = json.loads(item.value_json)
    return into
