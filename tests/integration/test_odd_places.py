"""Trainings in processes without a home folder or shared memory, and side by side."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlwandb_callbacks.testing import OfflineRun, read_offline_run

PROGRAM = Path(__file__).parents[1] / "programs" / "odd_place.py"
TIMEOUT_SECONDS = 120


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "default", **variables}


def assert_is_complete(run: OfflineRun) -> None:
    assert run.exit_code == 0
    assert len(run.column("train/loss")) == 4
    assert len(run.media("video/best")) == len(run.column("eval/return_mean")) == 1
    assert "logging/errors" not in run.summary


def test_a_training_without_a_home_in_a_folder_with_a_foreign_name() -> None:
    folder = Path("Übung 雪 ✓")
    folder.mkdir()
    variables = {name: value for name, value in environment().items() if name != "HOME"}
    with Path("output.txt").open("w") as output:
        process = subprocess.run(
            [sys.executable, PROGRAM],
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=output,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    assert process.returncode == 0, Path("output.txt").read_text()
    assert_is_complete(read_offline_run(folder / "wandb"))
    assert list((folder / "vidéos 雪").rglob("*.mp4"))


def test_two_trainings_at_the_same_time_share_a_record_path() -> None:
    commands = [[sys.executable, PROGRAM]] * 2
    folders = [Path("first"), Path("second")]
    processes = []
    for command, folder in zip(commands, folders, strict=True):
        variables = environment(WANDB_DIR=str(folder.absolute()))
        folder.mkdir()
        processes.append(subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True))
    try:
        for process in processes:
            _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    for folder in folders:
        assert_is_complete(read_offline_run(folder / "wandb"))
    assert not list(Path("vidéos 雪").rglob("*.part.*"))


def can_mount() -> bool:
    """Returns whether this process may mount a file system that only its children see."""
    if os.name != "posix" or shutil.which("unshare") is None:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")
def test_a_training_with_tiny_shared_memory() -> None:
    script = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/full && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, PROGRAM]
    process = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert process.returncode == 0, process.stderr
    assert_is_complete(read_offline_run("wandb"))
