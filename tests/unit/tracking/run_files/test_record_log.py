"""Framing of run files: split records, files that are cut off, and reading in bounded memory."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
from run_files import history, run_end, run_start, summary, write_run_file
from wandb.proto import wandb_internal_pb2 as pb

from rlwandb_callbacks.testing import read_offline_run
from rlwandb_callbacks.tracking.run_files.record_log import BLOCK_BYTES, HEADER_BYTES, RecordLog, record_type


@pytest.mark.parametrize("short_by", range(25))
def test_records_are_complete_wherever_they_meet_the_end_of_a_block(tmp_path: Path, short_by: int) -> None:
    """With 7 bytes left in a block, W&B writes a first part without content; with fewer it fills them with zeros."""
    around = HEADER_BYTES + len(pb.Record.SerializeToString(history(a="")) + b"12")  # longer lengths of record and item
    fill = "x" * (BLOCK_BYTES - HEADER_BYTES - around - 4 - short_by)
    rows = [{"a": fill}, {"b": 1}, {"c": "y" * 3 * BLOCK_BYTES}, {"d": 2}]
    file = write_run_file(tmp_path / "run-x.wandb", [*(history(**row) for row in rows), run_end()])
    run = read_offline_run(file)
    assert run.history == rows
    assert [run.column(key) for key in "abcd"] == [[value] for row in rows for value in row.values()]


def test_a_file_that_is_cut_off_anywhere_has_all_complete_rows(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"a": "y" * BLOCK_BYTES}, {"a": 3}]
    file = write_run_file(tmp_path / "run-x.wandb", [history(**row) for row in rows])
    content = file.read_bytes()
    ends = [len(write_run_file(tmp_path / "part", [history(**row) for row in rows[:n]]).read_bytes()) for n in range(4)]
    for size in [*range(ends[1] + 10), *range(BLOCK_BYTES - 9, BLOCK_BYTES + 9), *range(ends[2] - 9, len(content) + 1)]:
        file.write_bytes(content[:size])
        run = read_offline_run(file, wait_seconds=0)
        complete = sum(size >= end for end in ends[1:])
        assert run.history == rows[:complete], size
        assert run.column("a") == [row["a"] for row in rows[:complete]], size


def test_a_damaged_block_costs_its_own_records_alone(tmp_path: Path) -> None:
    rows = [history(a=number, fill="x" * 1000) for number in range(100)]
    file = write_run_file(tmp_path / "run-x.wandb", [*rows, run_end()])
    content = bytearray(file.read_bytes())
    content[BLOCK_BYTES : BLOCK_BYTES + 5000] = b"\xff" * 5000
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"run-x\.wandb is damaged in 1 place"):
        steps = read_offline_run(file).column("a")
    assert steps[:30] == list(range(30))
    assert steps[-30:] == list(range(70, 100))


def test_a_changed_byte_never_changes_a_value_and_is_warned_of(tmp_path: Path) -> None:
    """A wrong length in the last block alone may look like a file that is cut off."""
    rows: list[dict[str, Any]] = [{"a": number, "text": "t" * number} for number in range(3)]
    records = [run_start("x", 1), summary(a=2), *(history(**row) for row in rows), run_end()]
    file = write_run_file(tmp_path / "run-x.wandb", records)
    content = file.read_bytes()
    starts = [HEADER_BYTES]
    for record in records:
        starts.append(starts[-1] + HEADER_BYTES + record.ByteSize())
    lengths = {start + place for start in starts for place in (4, 5)}
    for place in range(HEADER_BYTES, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = read_offline_run(file, wait_seconds=0)
        assert all(row in rows for row in run.history), place
        assert run.summary in ({}, {"a": 2})
        assert run.column("a") == [row["a"] for row in run.history]
        assert caught or place in lengths, place


def test_records_without_checksums_are_read(tmp_path: Path) -> None:
    file = write_run_file(tmp_path / "run-x.wandb", [history(a=1)])
    content = bytearray(file.read_bytes())
    content[HEADER_BYTES : HEADER_BYTES + 4] = bytes(4)
    file.write_bytes(content)
    assert read_offline_run(file, wait_seconds=0).column("a") == [1]


def test_a_record_that_was_written_in_part_is_read_when_it_is_complete(tmp_path: Path) -> None:
    """A network drive may show zeros where the content is not there yet."""
    file = write_run_file(tmp_path / "run-x.wandb", [history(a=1), history(a=2)])
    content = file.read_bytes()
    file.write_bytes(content[:-5] + bytes(5))
    log = RecordLog(file)
    log.read_new()
    assert (len(list(log.rows())), log.damaged_places) == (1, 1)
    file.write_bytes(content)
    log.read_new()
    assert (len(list(log.rows())), log.damaged_places) == (2, 0)


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    file = write_run_file(tmp_path / "run-x.wandb", [history(a=1), history(a=2)])
    run = read_offline_run(file, wait_seconds=0)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"run-x\.wandb has \d+ bytes, but had \d+ when it was read; read the run again"
    ):
        run.column("a")


def test_a_read_run_stays_as_it_was_while_the_file_grows(tmp_path: Path) -> None:
    rows = [history(a=number) for number in range(4)]
    file = write_run_file(tmp_path / "run-x.wandb", rows[:2])
    run = read_offline_run(file, wait_seconds=0)
    write_run_file(file, [*rows, summary(a=3), run_end()])
    assert (run.column("a"), run.summary, run.exit_code) == ([0, 1], {}, None)
    assert read_offline_run(file).column("a") == [0, 1, 2, 3]


def test_memory_does_not_grow_with_the_summaries_of_a_file(tmp_path: Path) -> None:
    """20 MB of summaries beside 5,000 rows: less than a tenth of the file is held at any time."""
    text = "x" * 4000
    records = (record for n in range(5000) for record in (summary(n, text=text), history(n, a=n / 7)))
    file = write_run_file(tmp_path / "run-x.wandb", [run_start("x", 1), *records, run_end()])
    tracemalloc.start()
    try:
        column = read_offline_run(file).column("a")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert column == [n / 7 for n in range(5000)]
    assert peak < file.stat().st_size / 10


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**40])
def test_the_type_of_a_record_is_found_behind_other_fields(number: int) -> None:
    record = pb.Record(num=number, uuid="u")
    record.control.mailbox_slot = "m"
    getattr(record, "_info").stream_id = "s"  # noqa: B009  # the name of the field
    record.use_artifact.id = "content"
    content = record.SerializeToString()
    by_number = {field.number: field.name for field, _ in record.ListFields()}
    assert by_number[record_type(content, 0, len(content))] == "use_artifact"
    # W&B's own process writes the fields that every record can have first
    others = pb.Record(num=number, uuid="u")
    getattr(others, "_info").stream_id = "s"  # noqa: B009
    first = others.SerializeToString() + pb.Record(history=history(a=1).history).SerializeToString()
    assert record_type(first, 0, len(first)) == 2
    assert record_type(b"", 0, 0) == 0
