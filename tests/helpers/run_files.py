"""Writer of W&B run files for tests of their reader."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

from rlwandb_callbacks.tracking.run_files.record_log import (
    BLOCK_BYTES,
    FIRST,
    HEADER_BYTES,
    LAST,
    MAGIC,
    MIDDLE,
    WHOLE,
)


def history(num: int = 1, **values: Any) -> Any:
    """Makes the record of a row; the names of arguments are keys."""
    record = pb.Record(num=num)
    record.history.SetInParent()
    for key, value in values.items():
        record.history.item.add(nested_key=[key], value_json=json.dumps(value))
    return record


def summary(num: int = 1, **values: Any) -> Any:
    """Makes the record of changes of the summary."""
    record = pb.Record(num=num)
    for key, value in values.items():
        record.summary.update.add(nested_key=[key], value_json=json.dumps(value))
    return record


def run_start(run_id: str, seconds: int) -> Any:
    """Makes the record of the start of a run, at a time in seconds."""
    record = pb.Record()
    record.run.run_id = run_id
    record.run.start_time.seconds = seconds
    return record


def run_end(exit_code: int = 0) -> Any:
    """Makes the record of the end of a run."""
    record = pb.Record()
    record.exit.exit_code = exit_code
    return record


def write_run_file(path: Path, records: Iterable[Any]) -> Path:
    """Writes records as W&B does; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(MAGIC.ljust(HEADER_BYTES, b"\0"))
        position = HEADER_BYTES
        for record in records:
            rest, is_first = record.SerializeToString(), True
            while True:
                room = BLOCK_BYTES - position % BLOCK_BYTES
                if room < HEADER_BYTES:
                    position += file.write(bytes(room))
                    continue
                part, rest = rest[: room - HEADER_BYTES], rest[room - HEADER_BYTES :]
                kind = (FIRST if rest else WHOLE) if is_first else (MIDDLE if rest else LAST)
                checksum = zlib.crc32(bytes([kind]) + part)
                position += file.write(struct.pack("<IHB", checksum, len(part), kind) + part)
                is_first = False
                if not rest:
                    break
    return path
