"""A run that breaks in the middle of a training is one warning, and costs the training nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from wandb_server import ProgramResult, run_program

from rlwandb_callbacks.testing import read_offline_run

pytestmark = pytest.mark.timeout(180)
PROGRAM = Path(__file__).parents[1] / "programs" / "broken_run.py"
SMALL_DISK = ("unshare", "--user", "--map-root-user", "--mount")  # mounts that end with the program
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Training:
    """One training of the program, as it prints it."""

    steps: int
    best: str
    run_folder: Path


def trainings(result: ProgramResult) -> list[Training]:
    assert result.returncode == 0, result.stderr
    lines = [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("trained ")]
    return [Training(int(steps), best, Path(folder)) for steps, best, folder in lines]


def package_warnings(result: ProgramResult) -> list[str]:
    return [line.partition("rlwandb: ")[2] for line in result.stderr.splitlines() if "UserWarning: rlwandb: " in line]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(folder), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}


def check_further_training(training: Training) -> None:
    """Checks that the training that follows has a run of its own with all rows."""
    assert (training.steps, training.best) == (40, "step=24.ckpt")
    run = read_offline_run(training.run_folder)
    assert len(run.column("eval/return_mean")) == len(run.column("video/best")) == 5


REMEDIES = {
    "finished": "The W&B run was finished while training goes on (by wandb.finish()",
    "killed": "W&B's own process (wandb-core) has ended, as a process does that is killed or runs out of memory",
}


@pytest.mark.parametrize("what", REMEDIES)
def test_a_run_that_ends_early_is_one_warning_and_changes_no_training(tmp_path: Path, what: str) -> None:
    result = run_program(PROGRAM, environment(tmp_path), cwd=tmp_path, timeout_seconds=120, arguments=(what, "runs"))
    broken, *further = trainings(result)
    assert (broken.steps, broken.best) == (40, "step=24.ckpt")
    (warning,) = package_warnings(result)
    assert REMEDIES[what] in warning
    assert "Traceback" not in result.stderr
    if what == "killed":
        check_further_training(*further)
    else:  # rows that wait for the thread of the histograms are lost with the run
        steps = read_offline_run(tmp_path / broken.run_folder).column("trainer/global_step")
        assert steps == list(range(1, 12, 2))[: len(steps)]
        assert steps


def test_a_full_disk_is_one_warning_and_changes_no_training(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*SMALL_DISK, "true"], check=False).returncode != 0:
        pytest.skip("this system lets no test mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [*SMALL_DISK, "sh", "-c", MOUNT, "sh", str(disk), sys.executable, str(PROGRAM), "full", str(disk)]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=120, check=False
    )
    result = ProgramResult(run.returncode, run.stdout, run.stderr, 0.0)
    (broken,) = trainings(result)
    assert (broken.steps, broken.best) == (40, "step=24.ckpt")
    (warning,) = package_warnings(result)
    assert "No space left on device" in warning
    assert "Traceback" not in result.stderr
