"""Short trainings with the Atari, Box2D and MuJoCo configs, run from the command line, and one notebook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from episodes import with_panel
from nbclient import NotebookClient

from rlwandb_callbacks.cli import main
from rlwandb_callbacks.core.action_spec import ActionSpec, DiscreteActions
from rlwandb_callbacks.core.episode import Episode, QValues
from rlwandb_callbacks.demos.atari import make_qbert
from rlwandb_callbacks.environments.description import describe_actions
from rlwandb_callbacks.environments.headless import can_load
from rlwandb_callbacks.media.drawing import enlarge
from rlwandb_callbacks.testing import OfflineRun, read_offline_run

ROOT = Path(__file__).parents[2]


COMMON = ("--trainer.callbacks.cfg.on_error=raise", "--trainer.enable_progress_bar=false")


def train(name: str, folder: Path, *overrides: str) -> OfflineRun:
    """Trains a config in this process and in the given folder; warnings of this package are errors."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="rlwandb")
        patch.chdir(folder)
        patch.setenv("PL_GLOBAL_SEED", "")  # removes the variable that seed_everything sets
        patch.setattr(sys, "argv", ["rlwandb", "fit", f"--config={ROOT / 'configs' / name}", *COMMON, *overrides])
        assert main() == 0
    return read_offline_run(folder / "wandb")


def train_in_subprocess(name: str, *overrides: str) -> OfflineRun:
    """Trains a config in a new process, as MuJoCo selects its renderer at import."""
    command = [sys.executable, "-m", "rlwandb_callbacks.cli", "fit", f"--config={ROOT / 'configs' / name}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [*command, *COMMON, *overrides], capture_output=True, text=True, timeout=280, check=False, env=environment
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return read_offline_run("wandb")


def keys(run: OfflineRun) -> set[str]:
    return {key for row in run.history for key in row}


def episodes_table(run: OfflineRun) -> list[dict[str, Any]]:
    content = json.loads(run.media("eval/episodes")[-1].read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def check_axes(run: OfflineRun) -> None:
    assert all({"trainer/global_step", "time/env_steps", "time/updates"} <= row.keys() for row in run.history)
    steps = run.column("time/env_steps")
    assert steps == sorted(steps)
    assert run.exit_code == 0


def check_length(run: OfflineRun, frames: np.ndarray, label: str) -> dict[str, Any]:
    """Checks that a video has one frame per state of its episode; returns the episode, by the seed in the caption."""
    (caption,) = (value["caption"] for value in run.column(f"video/{label}")[-1:])
    seed = int(re.findall(r"seed (\d+)", caption)[0])
    (episode,) = (row for row in episodes_table(run) if row["seed"] == seed)
    assert len(frames) == episode["length"] + 1
    return episode


@pytest.fixture(scope="module")
def qbert(tmp_path_factory: pytest.TempPathFactory) -> OfflineRun:
    return train("qbert_dqn.yaml", tmp_path_factory.mktemp("qbert"), *QBERT)


QBERT = (
    "--model.buffer_size=300",
    "--model.batch_size=4",
    "--model.warmup_env_steps=100",
    "--model.total_env_steps=140",
    "--trainer.val_check_interval=10",
    "--trainer.log_every_n_steps=5",
    "--trainer.callbacks.cfg.gradients.log_freq=10",
    "--trainer.callbacks.cfg.evaluation.episodes=2",
    "--trainer.callbacks.cfg.evaluation.max_steps=150",
)


def test_dqn_on_qbert_logs_all_its_metrics(qbert: OfflineRun) -> None:
    expected = {"loss", "lr", "entropy", "epsilon", "q_value", "target_q_value", "td_error", "grad_norm"}
    assert {f"train/{name}" for name in expected} <= keys(qbert)
    assert "gradients/q_network.1.weight" in keys(qbert)
    assert qbert.column("eval/episodes_count") == [2]
    assert qbert.column("time/env_steps")[-1] == 140
    check_axes(qbert)


def test_video_of_qbert_shows_the_game_in_color_with_action_names(qbert: OfflineRun, decode: Any) -> None:
    meta, frames = decode(qbert.media("video/best")[0])
    episode = check_length(qbert, frames, "best")
    assert meta["fps"] == 15.0
    env = make_qbert(render_mode="rgb_array")
    env.reset(seed=episode["seed"])
    game = enlarge(env.render())
    shown = frames[0][: game.shape[0], : game.shape[1]]
    assert game.shape == (420, 320, 3)
    assert np.abs(shown.astype(int) - game).mean() < 6
    named, numbered = describe_actions(env), DiscreteActions(tuple(map(str, range(6))), 0)
    assert distance_of_labels(frames[0], named) < 0.5 * distance_of_labels(frames[0], numbered)


def distance_of_labels(frame: np.ndarray, actions: ActionSpec) -> float:
    """Returns the mean difference between the labels beside a frame of Q*bert and those of these actions."""
    episode = Episode(actions=np.zeros(1, int), rewards=np.zeros(1), terminated=True, scores=QValues(np.zeros((1, 6))))
    expected = with_panel([np.zeros((210, 160, 3), np.uint8)], episode, actions)[0]
    labels = np.s_[100:376, 350:420]
    return float(np.abs(frame[labels].astype(int).max(-1) - expected[labels].astype(int).max(-1)).mean())


def test_qbert_config_logs_action_probabilities(tmp_path: Path) -> None:
    run = train(
        "qbert_dqn.yaml",
        tmp_path,
        *QBERT,
        "--trainer.callbacks.cfg.action_logger=action probability",
        "--trainer.callbacks.cfg.evaluation.max_steps=30",
    )
    assert {"policy/entropy", "q/mean"} <= keys(run), "q-values are shown as probabilities"
    assert len(run.media("video/best")) == 1


@pytest.fixture(scope="module")
def lunar_lander(tmp_path_factory: pytest.TempPathFactory) -> OfflineRun:
    return train(
        "lunarlander_ppo.yaml",
        tmp_path_factory.mktemp("lunar_lander"),
        "--model.num_envs=4",
        "--model.steps_per_batch=64",
        "--model.total_env_steps=1024",
        "--trainer.val_check_interval=4",
        "--trainer.callbacks.cfg.evaluation.episodes=3",
    )


def test_ppo_on_lunar_lander_logs_all_its_metrics(lunar_lander: OfflineRun) -> None:
    columns = {
        name: lunar_lander.column(f"train/{name}")
        for name in (
            "loss",
            "actor_loss",
            "critic_loss",
            "entropy",
            "approx_kl",
            "clip_fraction",
            "explained_variance",
            "value",
            "grad_norm",
            "actor_grad_norm",
            "critic_grad_norm",
            "lr_actor_network",
            "lr_critic",
        )
    }
    assert {name: len(column) for name, column in columns.items()} == dict.fromkeys(columns, 4)
    assert 0 < columns["entropy"][0] <= np.log(4)
    assert all(0 <= kl < 1 for kl in columns["approx_kl"])
    assert all(0 <= fraction <= 1 for fraction in columns["clip_fraction"])
    assert columns["explained_variance"][0] < 1
    assert columns["lr_actor_network"][:2] == pytest.approx([5e-4, 5e-4 * 0.75])
    assert columns["lr_critic"][:2] == pytest.approx([1e-3, 1e-3 * 0.75])
    assert max(columns["critic_grad_norm"]) > 0.5, "norms are measured before clipping"
    assert lunar_lander.column("time/env_steps")[-1] == 1024
    check_axes(lunar_lander)


def test_video_of_lunar_lander_has_the_size_and_fps_of_the_env(lunar_lander: OfflineRun, decode: Any) -> None:
    meta, frames = decode(lunar_lander.media("video/worst")[0])
    check_length(lunar_lander, frames, "worst")
    assert meta["size"][0] > 600
    assert meta["fps"] == 50.0
    assert {"policy/entropy", "policy/action_histogram"} <= keys(lunar_lander)


@pytest.mark.skipif(not (can_load("EGL") or can_load("OSMesa")), reason="MuJoCo renders with libegl1 or libosmesa6")
def test_sac_on_half_cheetah_logs_all_its_metrics_and_a_video_with_panel(decode: Any) -> None:
    overrides = (
        "--model.warmup_env_steps=200",
        "--model.total_env_steps=260",
        "--trainer.val_check_interval=60",
        "--trainer.log_every_n_steps=20",
        "--trainer.callbacks.cfg.evaluation.episodes=1",
        "--trainer.callbacks.cfg.evaluation.max_steps=50",
    )
    run = train_in_subprocess("halfcheetah_sac.yaml", *overrides)
    expected = {"q_value", "q2_value", "target_q_value", "td_error", "alpha", "entropy", "actor_loss", "critic_loss"}
    rates = {"lr_actor_network", "lr_critic", "lr_log_temperature"}
    assert {f"train/{name}" for name in expected | rates | {"grad_norm"}} <= keys(run)
    alphas = run.column("train/alpha")
    assert alphas == sorted(alphas, reverse=True)
    assert alphas[-1] < 0.2
    assert run.column("train/q_value") != run.column("train/q2_value")
    check_axes(run)
    meta, frames = decode(run.media("video/best")[0])
    assert len(frames) == 51
    assert meta["size"][1] == 480
    assert meta["size"][0] > 480
    assert frames[0][:480, :480].std() > 10, "the environment was rendered"
    assert np.abs(frames[0][:480, :480].astype(int) - frames[-1][:480, :480]).mean() > 0.5


@pytest.mark.filterwarnings("ignore")
def test_notebook_on_custom_agents_shows_each_error_and_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLWANDB_NOTEBOOK_UPDATES", "30")
    notebook: Any = nbformat.read(ROOT / "notebooks" / "03_your_own_agent.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    resources = {"metadata": {"path": str(Path.cwd())}}
    NotebookClient(notebook, timeout=280, kernel_name="python3", resources=resources).execute()
    printed = {cell.source: "".join(output.get("text", "") for output in cell.outputs) for cell in code}
    errors = [text for source, text in printed.items() if source.startswith("show_error(")]
    assert len(errors) == 7
    assert all(re.match(r"(Config|Env|Policy)Error: ", text) for text in errors), errors
    warnings_shown = [text for source, text in printed.items() if "warnings_of(env" in source]
    assert "render_mode" in warnings_shown[0]
    assert "recorded while playing" in warnings_shown[1]
    shown = {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= shown
    runs = [read_offline_run(folder) for folder in sorted(Path("wandb").glob("offline-run-*"))]
    assert any(run.column("train/episode_length") for run in runs)
    assert runs[-1].exit_code == 0
