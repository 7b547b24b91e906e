"""Rows with tables, pictures and videos, read back from the file of an offline run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from wandb.sdk.data_types import _private

from rlwandb_callbacks.core.values import Histogram, Html, Image, Scalar, Table, Value, Video
from rlwandb_callbacks.testing import OfflineRun, read_offline_run
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from rlwandb_callbacks.tracking.wandb_tracker import WandbTracker

NUMBERS: dict[str, Value] = {
    "eval/return_mean": Scalar(3.0),
    "eval/episodes_count": Scalar(2.0),
    "eval/return_distribution": Histogram(np.array([1, 2]), np.array([0.0, 1.0, 2.0])),
}
FILES: dict[str, Value] = {
    "eval/episodes": Table(("episode", "return"), [(0, 1.0), (1, None)]),
    "video/best_sheet": Image(np.zeros((4, 6, 3), np.uint8), "best"),
    "dataset/interactive": Html("<p>map</p>"),
}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "best.mp4"
    path.write_bytes(b"frames")
    return path


@pytest.fixture
def silent_video(tmp_path: Path) -> Iterator[Path]:
    """Returns a file whose reader waits, as one on a file system that does not answer, until the test ends."""
    path = tmp_path / "silent.mp4"
    os.mkfifo(path)
    yield path
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    path.unlink()
    path.write_bytes(b"frames")
    os.close(writer)
    for thread in threading.enumerate():
        if thread.name == "rlwandb-rows":
            thread.join(30.0)


class Logged:
    """A tracker of a new offline run."""

    def __init__(self) -> None:
        self.run: Any = wandb.init()
        self.tracker = WandbTracker(self.run, step_metric="trainer/global_step")

    def write(self, step: int, values: dict[str, Value]) -> None:
        self.tracker.write({"trainer/global_step": step, "time/updates": step}, values)

    def close(self) -> OfflineRun:
        assert self.tracker.wait(WaitLimit(30.0)) == 0
        self.tracker.flush()
        self.run.finish()
        return read_offline_run(Path(self.run.dir).parent)


def values_of(row: dict[str, Any]) -> set[str]:
    return {key for key in row if key.startswith(("eval/", "video/", "dataset/"))}


def test_numbers_and_files_are_rows_of_their_own_at_the_same_step(video: Path) -> None:
    logged = Logged()
    files = {**FILES, "video/best": Video(str(video), "return 3")}
    logged.write(7, {**NUMBERS, **files})
    run = logged.close()
    assert [values_of(row) for row in run.history] == [NUMBERS.keys(), files.keys()]
    assert [row["trainer/global_step"] for row in run.history] == [7, 7]
    assert run.column("video/best")[0]["caption"] == "return 3"
    stored = {key: run.media(key)[0].read_bytes() for key in files}
    assert stored["video/best"] == b"frames"
    assert b"<p>map</p>" in stored["dataset/interactive"]
    assert json.loads(stored["eval/episodes"]) == {"columns": ["episode", "return"], "data": [[0, 1.0], [1, None]]}
    for key, content in stored.items():
        entry = run.column(key)[0]
        assert (entry["sha256"], entry["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert entry["path"] in run.files


def test_a_table_is_a_file_and_no_artifact(tmp_path: Path) -> None:
    logged = Logged()
    logged.write(1, FILES)
    entry = logged.close().column("eval/episodes")[0]
    assert (entry["_type"], entry["nrows"], entry["ncols"]) == ("table-file", 2, 2)
    assert not any("artifact" in key for key in entry)
    assert not list(tmp_path.rglob("staging/*"))


@pytest.mark.parametrize("user_sets_steps", [False, True])
def test_all_rows_of_a_table_that_is_too_long_for_one_file_are_in_the_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_sets_steps: bool
) -> None:
    monkeypatch.setattr(wandb.Table, "MAX_ROWS", 100)  # of 10,000
    logged = Logged()
    if user_sets_steps:
        wandb.log({"mine": 1}, step=0)
    points = [(number,) for number in range(2 * wandb.Table.MAX_ROWS + 1)]
    logged.write(1, {**NUMBERS, **FILES, "dataset/points": Table(("x",), points)})
    run = logged.close()
    contents = [json.loads(path.read_bytes())["data"] for path in run.media("dataset/points")]
    assert [entry["nrows"] for entry in run.column("dataset/points")] == [len(data) for data in contents]
    assert [tuple(point) for data in contents for point in data] == points
    assert len(run.column("eval/episodes")) == 1
    assert {row["trainer/global_step"] for row in run.history if "dataset/points" in row} == {1}
    assert not list(tmp_path.rglob("staging/*"))


def test_numbers_wait_for_no_file(silent_video: Path) -> None:
    logged = Logged()
    logged.write(1, {**NUMBERS, "video/best": Video(str(silent_video))})
    logged.write(2, NUMBERS)
    assert logged.tracker.wait(WaitLimit(0.1)) == 1
    logged.tracker.flush()
    logged.run.finish()
    run = read_offline_run(Path(logged.run.dir).parent)
    assert [row["trainer/global_step"] for row in run.history if "eval/return_mean" in row] == [1, 2]


def test_rows_that_files_hold_up_are_bounded_and_told(silent_video: Path) -> None:
    logged = Logged()
    values = {**NUMBERS, "video/best": Video(str(silent_video))}
    for step in range(32):
        logged.write(step, values)
    with pytest.raises(RuntimeError, match=r"video/best were left out, as 32 rows .* wait to be written"):
        logged.write(32, values)


def test_each_file_that_cannot_be_written_costs_itself_only(video: Path) -> None:
    logged = Logged()
    broken = {"video/worst": Video("missing.mp4"), "video/median": Video("also_missing.mp4")}
    logged.write(1, {**NUMBERS, **FILES, **broken, "video/best": Video(str(video))})
    logged.tracker.wait(WaitLimit(30.0))
    errors = logged.tracker.errors()
    assert len(errors) == 2
    assert logged.tracker.errors() == []
    run = logged.close()
    assert set().union(*map(values_of, run.history)) == {*NUMBERS, *FILES, "video/best"}


def test_a_full_disk_costs_the_file_that_finds_no_room(video: Path) -> None:
    logged = Logged()
    name = f"best_1_{hashlib.sha256(b'frames').hexdigest()[:20]}.mp4"
    folder = Path(logged.run.dir) / "media/videos/video"
    folder.mkdir(parents=True)
    (folder / name).symlink_to("/dev/full")
    logged.write(1, {**NUMBERS, **FILES, "video/best": Video(str(video))})
    logged.tracker.wait(WaitLimit(30.0))
    (error,) = logged.tracker.errors()
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    run = logged.close()
    assert [values_of(row) for row in run.history] == [NUMBERS.keys(), FILES.keys()]


def test_the_error_of_a_file_is_raised_by_the_next_row(video: Path) -> None:
    logged = Logged()
    logged.write(1, {"video/best": Video("missing.mp4")})
    logged.tracker.wait(WaitLimit(30.0))
    with pytest.raises(FileNotFoundError, match=r"missing\.mp4"):
        logged.write(2, NUMBERS)
    assert logged.close().column("eval/return_mean") == [3]


def test_files_cost_no_row_that_the_user_logs_with_a_step() -> None:
    logged = Logged()
    for step in range(10):
        wandb.log({"mine": step}, step=step)
        logged.write(step, {**NUMBERS, **FILES})
    run = logged.close()
    assert run.column("mine") == list(range(10))
    assert len(run.column("eval/episodes")) == len(run.column("eval/return_mean")) == 10
    assert logged.tracker.dropped_row() is None


def test_a_late_row_of_files_leaves_the_latest_axes_in_the_summary() -> None:
    logged = Logged()
    logged.write(5, FILES)
    logged.write(9, NUMBERS)
    logged.tracker.wait(WaitLimit(30.0))
    logged.write(6, FILES)
    run = logged.close()
    assert (run.summary["trainer/global_step"], run.summary["time/updates"]) == (9, 9)
    assert [row["trainer/global_step"] for row in run.history if "eval/episodes" in row] == [5, 6]


def test_an_aggregation_that_the_user_defined_for_an_axis_goes_on_after_a_late_row() -> None:
    logged = Logged()
    logged.run.define_metric("time/updates", summary="max")
    logged.write(9, NUMBERS)
    logged.write(6, FILES)
    logged.tracker.wait(WaitLimit(30.0))
    logged.write(12, NUMBERS)
    logged.write(11, NUMBERS)
    run = logged.close()
    assert run.summary["time/updates"] == {"max": 12}
    assert run.summary["trainer/global_step"] == 12


def test_rows_of_the_user_before_the_first_row_have_the_axes_of_the_start() -> None:
    logged = Logged()
    logged.run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    logged.tracker.start_at({"trainer/global_step": 500, "time/updates": 500})
    for step in range(3):
        wandb.log({"mine": step}, step=step)
    logged.write(501, NUMBERS)  # joins the row with the latest step of the user
    run = logged.close()
    assert run.column("mine") == [0, 1, 2]
    assert [row["trainer/global_step"] for row in run.history] == [500, 500, 501]


def test_axes_and_constants_have_no_chart_by_default() -> None:
    logged = Logged()
    logged.write(1, {**NUMBERS, "eval/near/episodes_count": Scalar(2.0)})
    metrics = logged.close().metrics
    hidden = {key for key, metric in metrics.items() if metric.hidden}
    assert hidden == {"trainer/global_step", "time/updates", "eval/episodes_count", "eval/near/episodes_count"}
    assert metrics["eval/episodes_count"].step_metric == "trainer/global_step"


def test_files_are_written_after_a_cleaner_has_emptied_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_private.MEDIA_TMP, "name", str(tmp_path / "removed" / "wandb-media"))
    logged = Logged()
    logged.write(7, FILES)
    run = logged.close()
    assert values_of(run.history[0]) == FILES.keys()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("removed/*")} == {0o700}
