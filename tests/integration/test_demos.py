"""Short runs of the demo, two configs and a notebook, started from the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from rlwandb_callbacks.testing import OfflineRun, read_offline_run

ROOT = Path(__file__).parents[2]
RLWANDB = [sys.executable, "-m", "rlwandb_callbacks.cli"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [*RLWANDB, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)


def check_content(run_file: OfflineRun) -> None:
    keys = {key for row in run_file.history for key in row}
    assert {"train/loss", "train/lr", "train/entropy", "train/q_value", "train/target_q_value"} <= keys
    assert {"train/td_error", "train/grad_norm", "eval/return_mean", "eval/episodes"} <= keys
    assert {"eval/return_distribution", "gradients/q_network.0.weight", "parameters/q_network.0.weight"} <= keys
    assert not any("target_network" in key for key in keys)
    for label in ("best", "median", "worst"):
        assert run_file.media(f"video/{label}")[-1].stat().st_size > 1_000
    assert all("trainer/global_step" in row and "time/env_steps" in row for row in run_file.history)
    assert run_file.exit_code == 0


def test_demo_prints_its_result_and_the_paths_of_its_files() -> None:
    process = run("demo", "--updates", "600")
    assert process.returncode == 0, process.stdout + process.stderr
    assert re.search(r"Evaluation return: \d+ of 500", process.stdout)
    folder = re.search(r"Run: +(\S+)", process.stdout).group(1)  # type: ignore[union-attr]  # the next line fails if None
    check_content(read_offline_run(folder))
    videos = re.findall(r"^ +(\S+\.mp4)$", process.stdout, re.MULTILINE)
    assert len(videos) == 3
    assert all(Path(video).is_file() for video in videos)
    assert f"wandb sync {folder}" in process.stdout
    assert "Epoch 0" in process.stdout + process.stderr


def test_cartpole_config_trains() -> None:
    config = str(ROOT / "configs" / "cartpole_dqn.yaml")
    process = run(
        "fit",
        f"--config={config}",
        "--model.total_env_steps=3000",
        "--trainer.val_check_interval=250",
        "--trainer.callbacks.cfg.evaluation.episodes=4",
        "--trainer.callbacks.cfg.gradients.log_freq=100",
    )
    assert process.returncode == 0, process.stdout + process.stderr
    run_file = read_offline_run("wandb")
    check_content(run_file)
    assert run_file.column("eval/episodes_count") == [4, 4]


def test_offline_config_makes_its_data_and_trains(decode: Any) -> None:
    process = run(
        "fit",
        f"--config={ROOT / 'configs' / 'pendulum_cql.yaml'}",
        "--model.updates=40",
        "--model.data_episodes=3",
        "--trainer.val_check_interval=40",
        "--trainer.log_every_n_steps=10",
        "--trainer.callbacks.cfg.evaluation.episodes=3",
        "--trainer.callbacks.cfg.evaluation.max_steps=101",
    )
    assert process.returncode == 0, process.stdout + process.stderr
    with np.load("rl_videos/pendulum.npz") as data:
        assert data["observations"].shape == (600, 3)
    assert re.search(r"3 episodes, mean return -[\d,]+, best -[\d,]+", process.stdout + process.stderr)
    offline = read_offline_run("wandb")
    for name in ("loss", "critic_loss", "actor_loss", "cql_penalty", "q_value", "target_q_value", "entropy", "lr"):
        assert np.isfinite(offline.column(f"train/{name}")).all(), name
        assert len(offline.column(f"train/{name}")) >= 3, name
    (bias,), (error,) = offline.column("q/bias"), offline.column("q/abs_error")
    assert error >= bias > 0, "untrained critics predict about 0, and all rewards are negative"
    assert offline.column("q/judged_share") == [pytest.approx(3 / 101)]  # 0.97 ** 99 is the first below 0.05
    assert offline.media("q/prediction_vs_return")[0].is_file()
    for label in ("best", "median", "worst"):
        _, frames = decode(offline.media(f"video/{label}")[-1])
        assert len(frames) == 102
    assert offline.exit_code == 0


def test_print_config_shows_the_settings_of_the_callbacks() -> None:
    process = run("fit", f"--config={ROOT / 'configs' / 'cartpole_dqn.yaml'}", "--print_config")
    assert process.returncode == 0, process.stderr
    for line in ("record_path: ./rl_videos", "episodes: 8", "log_freq: 100", "env: CartPole-v1"):
        assert line in process.stdout


def test_misspelled_option_on_the_command_line_is_an_error_without_traceback() -> None:
    config = f"--config={ROOT / 'configs' / 'cartpole_dqn.yaml'}"
    process = run("fit", config, "--trainer.callbacks.cfg.evaluation.epsiodes=3")
    assert process.returncode == 2
    assert "epsiodes" in process.stderr
    assert "Traceback" not in process.stderr


def test_invalid_value_on_the_command_line_is_an_error() -> None:
    config = f"--config={ROOT / 'configs' / 'cartpole_dqn.yaml'}"
    process = run("fit", config, "--trainer.callbacks.cfg.evaluation.episodes=0")
    assert process.returncode == 2
    assert "evaluation.episodes is 0; it must be an integer ≥ 1" in process.stderr


def check_offline_content(run_file: OfflineRun) -> None:
    for key in ("dataset/overview", "dataset/interactive", "dataset/policy_on_data"):
        assert run_file.media(key)[-1].stat().st_size > 1_000
    assert 0 < run_file.column("dataset/ood_ratio")[-1] < 100


CONTENT_OF = {"01_quickstart": check_content, "02_offline": check_offline_content}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("01_*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run_and_have_no_stored_outputs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLWANDB_NOTEBOOK_UPDATES", "500")
    notebook: Any = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    resources = {"metadata": {"path": str(Path.cwd())}}
    NotebookClient(notebook, timeout=280, kernel_name="python3", resources=resources).execute()
    shown = {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= shown
    CONTENT_OF[path.stem](read_offline_run("wandb"))


def test_help_lists_the_commands() -> None:
    process = run("--help")
    assert process.returncode == 0
    assert all(word in process.stdout for word in ("demo", "embed PATH", "fit --config", "--version"))
