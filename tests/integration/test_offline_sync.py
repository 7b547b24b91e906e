"""The commands that we print for offline runs, run against a server whose rows are counted."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb_server import WandbServer, kill_group, run_program

from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.core.values import Table
from rlwandb_callbacks.tracking.sync_commands import describe_live_sync, live_sync_command, sync_command
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from rlwandb_callbacks.tracking.wandb_run import open_run, release_run
from rlwandb_callbacks.tracking.wandb_tracker import WandbTracker

pytestmark = pytest.mark.timeout(180)
WANDB = "import sys; from wandb.cli.cli import cli; sys.argv[0] = 'wandb'; cli()"


def arguments_of(command: str) -> tuple[str, ...]:
    words = shlex.split(command)
    assert words[0] == "wandb"
    return tuple(words[1:])


def sync(server: WandbServer, folder: Path, command: str) -> None:
    """Runs a command of a message, whose exit code is 0 whatever it does."""
    run_program(WANDB, server.environment(folder), cwd=folder, arguments=arguments_of(command))


@contextmanager
def running(server: WandbServer, folder: Path, command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WANDB, *arguments_of(command)],
        env=server.environment(folder),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill_group(process)
        process.wait()


def log(run: Any, values: range) -> None:
    for value in values:
        run.log({"a": value})


def rows(server: WandbServer, run_id: str) -> list[int]:
    return [row["a"] for row in server.rows(run_id) if "a" in row]


def wait_until(condition: Any, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_the_command_of_the_start_sends_all_rows_of_a_run_that_goes_on(server: WandbServer, tmp_path: Path) -> None:
    run = open_run(RunConfig(project="p", mode="offline", id="followed"))
    command = live_sync_command(run)
    if command is None:
        release_run(run)
        pytest.skip("this W&B has no command that follows a run")
    log(run, range(10))
    with running(server, tmp_path, command) as process:
        assert wait_until(lambda: list(Path(run.dir).parent.glob("*.syncstate")))  # it has begun
        log(run, range(10, 20))
        release_run(run)
        assert process.wait(timeout=60) == 0
    assert rows(server, "followed") == list(range(20))


def test_the_command_of_the_end_sends_what_a_sync_of_the_running_run_left(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wandb.teardown()
    monkeypatch.delenv("WANDB_SILENT")
    run = open_run(RunConfig(project="p", mode="offline"))
    log(run, range(10))
    assert "wandb sync" not in describe_live_sync(run)
    time.sleep(2.5)  # until W&B has written the rows
    sync(server, tmp_path, sync_command(run))
    assert len(rows(server, run.id)) == 10
    log(run, range(10, 20))
    release_run(run)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "rlwandb:" in line]
    assert "sends every row again" in line
    command = line.partition(f"{run.id}: ")[2].partition(" (")[0]
    assert "--include-synced" in command
    sync(server, tmp_path, command)
    assert rows(server, run.id) == list(range(20))


def test_all_parts_and_tables_of_a_job_that_was_started_again_arrive_from_another_machine(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb.Table, "MAX_ROWS", 100)  # of 10,000
    points = [(number,) for number in range(250)]
    for part in range(2):
        run = open_run(RunConfig(project="p", mode="offline", id="parts"))
        log(run, range(5 * part, 5 * part + 5))
        if part == 0:
            tracker = WandbTracker(run, step_metric="trainer/global_step")
            tracker.write({"trainer/global_step": 1}, {"dataset/points": Table(("x",), points)})
            assert tracker.wait(WaitLimit(60.0)) == 0
            tracker.close()
            time.sleep(1.1)  # the name of a folder has the second
        release_run(run)
    home = tmp_path / "another machine"
    home.mkdir()
    folders = [folder.rename(home / folder.name) for folder in sorted(Path("wandb").glob("offline-run-*"))]
    assert len(folders) == 2
    sync(server, home, shlex.join(["wandb", "sync", *map(str, folders)]))
    assert rows(server, "parts") == list(range(10))
    files = server.files("parts")
    entries = [row["dataset/points"] for row in server.rows("parts") if "dataset/points" in row]
    tables = [json.loads(files[entry["path"]])["data"] for entry in entries]
    assert [tuple(point) for table in tables for point in table] == points
