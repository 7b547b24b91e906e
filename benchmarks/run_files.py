"""Cost of reading W&B's local run files."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from wandb.proto import wandb_internal_pb2 as pb

from benchmarks.lines import Line, Pair, profile_call
from benchmarks.memory import peak_bytes
from rlwandb_callbacks.testing import read_offline_run
from rlwandb_callbacks.tracking.run_files import record_log

ROWS = 50_000
MEMORY_ROWS = 200_000
KEYS = ("train/loss", "train/q_value", "train/td_error", "trainer/global_step", "time/env_steps")
FILE_VARIABLE = "BENCHMARK_RUN_FILE"
IMPORTED_BY_BOTH = read_offline_run  # so that the import is not measured


def write_run(path: Path, rows: int) -> None:
    """Writes a run as wandb 0.31 does: two changes of the summary, one with all values, come with each row."""
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(record_log.MAGIC.ljust(record_log.HEADER_BYTES, b"\0"))
        for step, numbers in enumerate(generator.normal(size=(rows, 3)).tolist()):
            values = dict(zip(KEYS, [*numbers, step, 4 * step], strict=True))
            values |= {"_step": step, "_timestamp": 1.79e9 + step / 7, "_runtime": step / 7}
            run_time, summary, history = (
                pb.Record(num=3 * step),
                pb.Record(num=3 * step + 1),
                pb.Record(num=3 * step + 2),
            )
            run_time.summary.update.add(key="_runtime", value_json=str(step // 7))
            for key, value in values.items():
                for items in (summary.summary.update, history.history.item):
                    items.add(nested_key=[key], value_json=json.dumps(value))
            for record in (run_time, summary, history):
                write_record(file, record.SerializeToString())
        ended = pb.Record()
        ended.exit.exit_code = 0
        write_record(file, ended.SerializeToString())


def write_record(file: Any, content: bytes) -> None:
    """Writes a record, split at the ends of blocks."""
    is_first = True
    while content or is_first:
        room = record_log.BLOCK_BYTES - file.tell() % record_log.BLOCK_BYTES
        if room < record_log.HEADER_BYTES:
            file.write(bytes(room))
            continue
        part, content = content[: room - record_log.HEADER_BYTES], content[room - record_log.HEADER_BYTES :]
        whole_or_last, first_or_middle = (record_log.LAST, record_log.MIDDLE)
        if is_first:
            whole_or_last, first_or_middle = record_log.WHOLE, record_log.FIRST
        kind = first_or_middle if content else whole_or_last
        checksum = zlib.crc32(bytes([kind]) + part)
        file.write(struct.pack("<IHB", checksum, len(part), kind) + part)
        is_first = False


@cache
def run_folder(rows: int) -> tempfile.TemporaryDirectory[str]:
    """Returns the folder of a run, which is deleted when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="benchmark")
    write_run(Path(folder.name) / "run-benchmark.wandb", rows)
    return folder


def run_file() -> Path:
    """Returns the run file that the parent process names, or writes one."""
    return Path(os.environ.get(FILE_VARIABLE) or f"{run_folder(ROWS).name}/run-benchmark.wandb")


def read_series() -> None:
    """Reads five keys as arrays."""
    series = read_offline_run(run_file()).series(*KEYS)
    assert len({len(points.values) for points in series.values()}) == 1


def read_columns_one_by_one() -> None:
    """Reads five keys as lists, each in its own pass over the file."""
    run = read_offline_run(run_file())
    assert all(len(run.column(key)) == ROWS for key in KEYS)


def read_frames() -> None:
    """Finds the records alone: what any reader of the file has to do."""
    with run_file().open("rb") as file:
        assert not any(True for _ in record_log.read_records(file, record_log.HEADER_BYTES, 2**62, ()))


def read_everything() -> None:
    """Reads the columns from a file that is held, parsed and decoded as a whole."""
    rows, summary = [], {}
    for content in all_records(run_file().read_bytes()):
        record = pb.Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") == "history":
            rows.append({"/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
        for item in record.summary.update:
            summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    columns = {key: [row[key] for row in rows if key in row] for key in KEYS}
    assert len({len(column) for column in columns.values()}) == 1


def all_records(content: bytes) -> Iterator[bytes]:
    position, record = record_log.HEADER_BYTES, b""
    while position + record_log.HEADER_BYTES <= len(content):
        room = record_log.BLOCK_BYTES - position % record_log.BLOCK_BYTES
        if room < record_log.HEADER_BYTES:
            position += room
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + record_log.HEADER_BYTES])
        position += record_log.HEADER_BYTES
        part = content[position : position + length]
        record = part if kind in (record_log.WHOLE, record_log.FIRST) else record + part
        position += length
        if kind in (record_log.WHOLE, record_log.LAST):
            yield record


def compare_cpu(ours: Callable[[], None]) -> Pair:
    """Compares the CPU seconds of two ways of reading."""
    run_file()
    return cpu_seconds(ours), cpu_seconds(read_everything)


def cpu_seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def compare_memory(_: int) -> Pair:
    """Compares the peak memory of two ways of reading."""
    with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
        os.environ[FILE_VARIABLE] = f"{folder}/run-benchmark.wandb"
        try:
            write_run(run_file(), MEMORY_ROWS)
            return peak_bytes("benchmarks.run_files:read_series"), peak_bytes("benchmarks.run_files:read_everything")
        finally:
            del os.environ[FILE_VARIABLE]


WHAT = "reading 5 keys of 50,000 rows from W&B's run file"
EVERYTHING = "every record parsed, every value decoded, one dict per row"
LINES = [
    Line(
        f"{WHAT}, as arrays; CPU time",
        EVERYTHING,
        0.2,
        lambda _: compare_cpu(read_series),
        note="Half of the file are changes of the summary, which are skipped without parsing; only the keys that are "
        "asked for are decoded. The time per row does not depend on the number of rows.",
        profile=profile_call(read_series),
    ),
    Line(
        f"{WHAT}, as lists, in a pass for each key; CPU time",
        EVERYTHING,
        0.2,
        lambda _: compare_cpu(read_columns_one_by_one),
    ),
    Line(
        f"{WHAT}: finding the records alone, the floor; CPU time", EVERYTHING, None, lambda _: compare_cpu(read_frames)
    ),
    Line(
        f"{WHAT.replace('50,000', '200,000')}, as arrays: peak memory",
        EVERYTHING,
        0.1,
        compare_memory,
        pairs=1,
        unit="B",
        note="Some 6 MiB do not depend on the number of rows.",
    ),
]
