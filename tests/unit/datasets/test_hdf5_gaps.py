"""HDF5 files in which something is missing: it is said, and never read as zeros."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.errors import DatasetError

SHAPES = {"observations": (3,), "actions": (2,), "rewards": (), "terminals": ()}
ROWS = 100  # in each file, with 10 episodes


def write_part(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, shape in SHAPES.items():
            file[name] = np.ones((ROWS, *shape), np.float32)
        file["terminals"][:] = np.arange(ROWS) % 10 == 9


def join(path: Path, sources: list[str], *, gap: int = 0) -> Path:
    """Writes a file of virtual data sets made of the rows of others, with rows without a source at the end."""
    with h5py.File(path, "w") as file:
        for name, shape in SHAPES.items():
            layout = h5py.VirtualLayout((ROWS * len(sources) + gap, *shape), np.float32)
            for index, source in enumerate(sources):
                layout[ROWS * index : ROWS * (index + 1)] = h5py.VirtualSource(source, name, (ROWS, *shape))
            file.create_virtual_dataset(name, layout)
    return path


def message_of(path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        _ = open_dataset(path).num_episodes
    return str(caught.value)


@pytest.mark.parametrize("is_absolute", [False, True])
def test_missing_sources_of_virtual_data_sets_are_named(is_absolute: bool, tmp_path: Path) -> None:
    names = [f"part{index}.h5" for index in range(3)]
    for name in names:
        write_part(tmp_path / name)
    path = join(tmp_path / "all.h5", [str(tmp_path / name) if is_absolute else name for name in names])
    assert "part0.h5, " in message_of(path)
    assert "made of other files, of which" not in message_of(path)
    (tmp_path / "part1.h5").rename(tmp_path / "elsewhere.h5")
    with h5py.File(path) as file:
        assert file["rewards"][:].sum() == 2 * ROWS  # zeros for the rows that are missing
    message = message_of(path)
    assert "part1.h5 is missing" in message
    assert "part0.h5" not in message
    assert "Put all files there first" in message


def test_values_of_virtual_data_sets_without_a_source_are_refused(tmp_path: Path) -> None:
    part = tmp_path / "part.h5"
    write_part(part)
    shutil.copy(part, tmp_path / "short.h5")
    for name, gap in (("gap.h5", 20), ("whole.h5", 0)):
        with h5py.File(part) as source, h5py.File(tmp_path / name, "w") as file:
            for key, shape in SHAPES.items():
                source.copy(key, file, f"stored_{key}")
                layout = h5py.VirtualLayout((ROWS + gap, *shape), np.float32)
                layout[:ROWS] = h5py.VirtualSource(file[f"stored_{key}"])
                file.create_virtual_dataset(key, layout)
    assert open_dataset(tmp_path / "whole.h5").num_episodes == 10
    assert "360 numbers, of which 60 have no source" in message_of(tmp_path / "gap.h5")
    with h5py.File(tmp_path / "whole.h5", "a") as file:
        del file["stored_rewards"]
        file["stored_rewards"] = np.ones(30)
    assert "takes 100 numbers from /stored_rewards, which has 30" in message_of(tmp_path / "whole.h5")


def start_log(path: Path, *, swmr: bool) -> tuple[Any, dict[str, Any]]:
    """Opens a file of a logger that adds rows."""
    file = h5py.File(path, "w", libver="latest")
    columns = {
        name: file.create_dataset(name, (0, *shape), np.float32, maxshape=(None, *shape), chunks=(8, *shape))
        for name, shape in SHAPES.items()
    }
    if swmr:
        file.swmr_mode = True
    return file, columns


def log(columns: dict[str, Any], rows: range) -> None:
    for row in rows:
        for name, column in columns.items():
            column.resize(row + 1, axis=0)
            column[row] = row % 10 == 9 if name == "terminals" else row + 1
            column.flush()


def test_what_a_logger_wrote_before_it_was_killed_is_read(tmp_path: Path) -> None:
    file, columns = start_log(tmp_path / "log.h5", swmr=True)
    log(columns, range(50))
    columns["observations"].resize(51, axis=0)  # of the next row, only the observation is written
    columns["observations"].flush()
    shutil.copy(tmp_path / "log.h5", tmp_path / "killed.h5")  # as SIGKILL leaves it
    running = open_dataset(tmp_path / "log.h5")
    data = open_dataset(tmp_path / "killed.h5")
    for found in (running, data):
        assert found.episodes().lengths.tolist() == [10] * 5
        assert found.episodes().returns.tolist() == [55.0, 155.0, 255.0, 355.0, 455.0]
        assert any("was not closed" in warning and "The 50 rows" in warning for warning in found.warnings)
    columns["observations"].resize(50, axis=0)
    log(columns, range(50, 60))
    assert running.num_episodes == 6
    assert running.episodes().returns[-1] == 555.0
    file.close()
    assert not any("was not closed" in warning for warning in open_dataset(tmp_path / "log.h5").warnings)


def test_a_file_that_is_still_open_for_writing_is_not_called_damaged(tmp_path: Path) -> None:
    file, columns = start_log(tmp_path / "log.h5", swmr=False)
    log(columns, range(20))
    file.flush()
    shutil.copy(tmp_path / "log.h5", tmp_path / "killed.h5")
    message = message_of(tmp_path / "killed.h5")
    assert "marked as open for writing" in message
    assert "h5clear" in message
    assert "damaged" not in message
    program = "import sys; from rlwandb_callbacks import open_dataset; open_dataset(sys.argv[1])"
    command = [sys.executable, "-c", program, str(tmp_path / "log.h5")]
    environment = os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE", "PYTHONPATH": str(Path.cwd())}
    other = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert "another process has it open for writing" in other.stderr or "marked as open for writing" in other.stderr
    file.close()


@pytest.mark.parametrize(("written", "warned"), [([0, 2], True), ([0, 1], False), ([0, 1, 2], False)])
def test_rows_that_were_never_written_before_later_ones_are_reported(
    written: list[int], warned: bool, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "log.h5", "w") as file:
        observations = file.create_dataset("observations", (60, 2), chunks=(20, 2), dtype="f4")
        for part in written:
            observations[20 * part : 20 * part + 20] = part + 1
        file["actions"], file["rewards"] = np.ones((60, 1)), np.ones(60)
        file["terminals"] = np.arange(60) % 20 == 19
        file.create_dataset("timeouts", (60,), chunks=(20,), dtype=bool)[59] = False  # 0 on purpose
    found = [warning for warning in open_dataset(tmp_path / "log.h5").warnings if "never written" in warning]
    assert [("20 rows of /observations, from row 20 on" in warning) for warning in found] == [True] * warned
