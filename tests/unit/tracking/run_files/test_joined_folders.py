"""Runs of several folders, and positions that W&B added."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from run_files import history, run_end, run_start, summary, write_run_file

from rlwandb_callbacks.testing import read_offline_run

AXIS = "trainer/global_step"


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder ``wandb/`` of W&B's own with a run of two folders; the second goes back to update 20 and counts on."""
    folder = tmp_path_factory.mktemp("resumed")
    settings = wandb.Settings(silent=True, console="off")
    for process, first in enumerate([0, 20]):
        time.sleep(1.1 * process)  # W&B names folders by the second
        with wandb.init(mode="offline", dir=folder, id="same", resume="allow", settings=settings) as run:
            run.config.update({f"process{process}": True})
            run.define_metric("mine", step_metric=AXIS, step_sync=True)
            run.log({"mine": process})
            for step in (first + 10, first + 20):
                run.log({"train/loss": step / 100, AXIS: step})
            run.log({"mine": process + 0.5})
    return folder / "wandb"


def parts_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("offline-run-*"))


def test_a_folder_with_runs_is_read_as_all_folders_of_its_newest_run(resumed: Path) -> None:
    run = read_offline_run(resumed)
    assert run.column("train/loss") == [0.1, 0.2, 0.3, 0.4]
    assert run.column("_step") == [0, 1, 2, 3] * 2
    assert (run.folders, run.folder, run.run_id) == (parts_of(resumed), parts_of(resumed)[1], "same")
    assert {"process0", "process1"} < run.config.keys()
    assert (run.summary["mine"], run.exit_code) == (1.5, 0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 0, 1)])
def test_folders_are_joined_by_their_time_in_any_order(resumed: Path, order: tuple[int, ...]) -> None:
    run = read_offline_run(*(parts_of(resumed)[number] for number in order))
    assert run.column(AXIS) == [0, 10, 20, 20, 0, 30, 40, 40]


def test_the_folder_of_a_run_and_its_file_are_read_alone(resumed: Path) -> None:
    for number, part in enumerate(parts_of(resumed)):
        for path in (part, part / "run-same.wandb"):
            run = read_offline_run(path)
            assert run.column("mine") == [number, number + 0.5]
            assert run.folder == part


def test_a_link_to_the_latest_run_is_resolved(resumed: Path) -> None:
    newest = parts_of(resumed)[1]
    assert read_offline_run(resumed / "latest-run").folder == newest.resolve()
    assert read_offline_run(newest, resumed / "latest-run").folders in ([newest], [newest.resolve()])


def test_a_position_that_w_and_b_added_after_a_resume_is_unknown(resumed: Path) -> None:
    """W&B stores 0 for the first row of each process, and the last update for the row at the end."""
    mine = read_offline_run(resumed).series("mine", "absent")
    assert mine["mine"].values.tolist() == [0, 0.5, 1, 1.5]
    assert mine["mine"].positions.tolist() == pytest.approx([0, 20, math.nan, 40], nan_ok=True)
    assert mine["absent"].values.size == 0
    assert read_offline_run(resumed).column(AXIS)[4] == 0


def test_a_position_added_after_an_online_resume_is_unknown(tmp_path: Path) -> None:
    """The file opens with the summary of the resumed run; the first row's own summary follows."""
    rows: list[dict[str, Any]] = [{"mine": 1, AXIS: 0, "_step": 5}, {"mine": 2, AXIS: 729}, {"mine": 3}]
    opening = [summary(mine=9, **{AXIS: 719}), summary(mine=1, **{AXIS: 0})]
    records = [run_start("x", 1), *opening, *(history(**row) for row in rows), run_end()]
    series = read_offline_run(write_run_file(tmp_path / "run-x.wandb", records)).series("mine")["mine"]
    assert series.positions.tolist() == pytest.approx([math.nan, 729, math.nan], nan_ok=True)
    assert series.values.tolist() == [1, 2, 3]


def test_rows_at_update_0_of_a_new_training_stay_there(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1, AXIS: 0}, {"a": "text", AXIS: 0}, {"a": True, AXIS: 5}, {"a": 2, AXIS: 10}]
    records = [summary(**rows[0]), *(history(**row) for row in rows), run_end()]
    series = read_offline_run(write_run_file(tmp_path / "run-x.wandb", records)).series("a", axis=AXIS)["a"]
    assert (series.positions.tolist(), series.values.tolist()) == ([0, 10], [1, 2])


def write_part(folder: Path, name: str, seconds: int, run_id: str = "same", *, ends: bool = True) -> Path:
    """Writes a folder with one row, its start."""
    records = [run_start(run_id, seconds), history(start=seconds), *([run_end()] if ends else [])]
    return write_run_file(folder / name / f"run-{run_id}.wandb", records).parent


def test_the_time_in_the_file_orders_folders_with_other_names_and_dates(tmp_path: Path) -> None:
    """Names have local times and may be changed; copying changes the dates of files."""
    folders = [write_part(tmp_path, name, start) for name, start in [("b", 100), ("c", 50), ("a", 75)]]
    os.utime(folders[1] / "run-same.wandb", (10**9, 2 * 10**9))
    run = read_offline_run(tmp_path)
    assert run.column("start") == [50, 75, 100]
    assert run.folder == folders[0]


def test_the_run_that_was_started_last_is_read_whatever_the_dates_of_files(tmp_path: Path) -> None:
    write_part(tmp_path, "later", 100, "second")
    first = write_part(tmp_path, "earlier", 50, "first")
    os.utime(first / "run-first.wandb", (2 * 10**9, 2 * 10**9))
    assert read_offline_run(tmp_path).run_id == "second"


def test_copies_of_a_folder_are_read_once(tmp_path: Path) -> None:
    """The copy of an unfinished folder is shorter, and a copied ``latest-run`` is no link any more."""
    parts = [write_part(tmp_path, "first", 50), write_part(tmp_path, "second", 100)]
    shutil.copytree(parts[1], tmp_path / "latest-run")
    content = (parts[0] / "run-same.wandb").read_bytes()
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "run-same.wandb").write_bytes(content[:-20])
    assert read_offline_run(tmp_path).column("start") == [50, 100]
    assert read_offline_run(tmp_path / "backup", *parts).column("start") == [50, 100]


def test_an_empty_file_of_a_run_that_begins_is_no_copy(tmp_path: Path) -> None:
    write_part(tmp_path, "first", 50)
    begun = write_run_file(tmp_path / "second" / "run-same.wandb", [])
    run = read_offline_run(tmp_path, wait_seconds=0)
    assert (run.folder, run.exit_code, run.column("start")) == (begun.parent, None, [50])


def test_only_the_newest_folder_is_waited_for(tmp_path: Path) -> None:
    write_part(tmp_path, "killed", 50, ends=False)
    write_part(tmp_path, "newer", 100)
    started = time.monotonic()
    run = read_offline_run(tmp_path, wait_seconds=60)
    assert time.monotonic() - started < 10
    assert (run.column("start"), run.exit_code) == ([50, 100], 0)


def test_the_end_of_an_older_folder_is_not_that_of_the_run(tmp_path: Path) -> None:
    write_part(tmp_path, "older", 50)
    write_part(tmp_path, "killed", 100, ends=False)
    assert read_offline_run(tmp_path, wait_seconds=0).exit_code is None


def test_a_run_is_chosen_by_its_id(tmp_path: Path) -> None:
    for name, seconds, run_id in [("a", 50, "first"), ("b", 60, "other"), ("c", 70, "first")]:
        write_part(tmp_path / "wandb", name, seconds, run_id)
    assert read_offline_run(tmp_path, run_id="first").column("start") == [50, 70]
    assert read_offline_run(tmp_path / "wandb", run_id="other").column("start") == [60]
    with pytest.raises(FileNotFoundError, match=r"no run-missing\.wandb file"):
        read_offline_run(tmp_path, run_id="missing")


def test_folders_of_different_runs_are_refused(tmp_path: Path) -> None:
    folders = [write_part(tmp_path, run_id, 50, run_id) for run_id in ("first", "other")]
    with pytest.raises(ValueError, match="different runs, first, other: give folders of one run"):
        read_offline_run(*folders)
    with pytest.raises(ValueError, match="The run is first, but run_id is 'other'"):
        read_offline_run(folders[0] / "run-first.wandb", run_id="other")


def test_media_are_in_the_folder_of_their_row(tmp_path: Path) -> None:
    for name, seconds in [("a", 1), ("b", 2)]:
        records = [run_start("x", seconds), history(v={"path": f"{name}.mp4"}), run_end()]
        write_run_file(tmp_path / name / "run-x.wandb", records)
    assert read_offline_run(tmp_path).media("v") == [tmp_path / name / "files" / f"{name}.mp4" for name in "ab"]
