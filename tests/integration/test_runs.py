"""W&B runs: selection, finishing and config."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import wandb
from failing_modules import RaisesInTraining
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.tuner import Tuner

from rlwandb_callbacks import EvaluationCallback, GradientsCallback, MetricsCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyQ, TinyValidatedQ, read_offline_run

CONFIG = {
    "gradient_logger": True,
    "on_error": "raise",
    "metrics": {"every_n_steps": 2},
    "gradients": {"log_freq": 4},
    "evaluation": {"episodes": 3},
}


def make_callback(**keywords: Any) -> WandbRLCallback:
    return WandbRLCallback(CONFIG, env=CorridorEnv, policy="q_network", **keywords)


class LoggingQ(TinyValidatedQ):
    """Module that logs with self.log and has hyperparameters, one of them a secret."""

    def __init__(self, batches: int = 8, api_key: str = "hunter2", layers: tuple[int, ...] = (8,)) -> None:
        super().__init__(batches)
        self.save_hyperparameters()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("mine", float(batch_idx))
        return super().training_step(batch, batch_idx)


def test_run_and_axis_of_a_wandb_logger_are_used(fit: Any) -> None:
    logger = WandbLogger(project="p")
    fit(LoggingQ(), make_callback(), logger=logger, log_every_n_steps=2)
    assert wandb.run is logger.experiment
    wandb.finish()
    run = read_offline_run("wandb")
    module_steps = {row["mine"]: row["trainer/global_step"] for row in run.history if "mine" in row}
    callback_steps = [row["trainer/global_step"] for row in run.history if "train/loss" in row]
    assert list(module_steps.values()) == [1, 3, 5, 7]
    assert callback_steps == [1, 3, 5, 7]
    assert [row["trainer/global_step"] for row in run.history if "video/best" in row] == [7]
    assert run.metrics["eval/return_mean"].step_metric == "trainer/global_step"


def test_step_logged_by_the_module_is_the_axis_of_callback_rows(fit: Any) -> None:
    class OwnStep(TinyValidatedQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("step", float(1_000 * (batch_idx + 1)))
            self.log("mine", 1.0)
            return super().training_step(batch, batch_idx)

    fit(OwnStep(), make_callback(), logger=WandbLogger(), log_every_n_steps=2)
    wandb.finish()
    run = read_offline_run("wandb")
    module_steps = [row["trainer/global_step"] for row in run.history if "mine" in row]
    assert module_steps == [2_000, 4_000, 6_000, 8_000]
    assert [row["trainer/global_step"] for row in run.history if "train/loss" in row] == module_steps
    assert [row["trainer/global_step"] for row in run.history if "video/best" in row] == [8_000]


def test_run_config_has_hyperparameters_and_settings_without_secrets(fit: Any) -> None:
    run_config = {"project": "p", "name": "n", "group": "g", "tags": ["a", "b"], "notes": "why", "id": "fixed1"}
    callback = make_callback(run={**run_config, "config": {"mine": 3, "password": "x"}})
    fit(LoggingQ(), callback)
    assert wandb.run is None
    run = read_offline_run(callback.run_folder)
    assert run.folder.name.endswith("-fixed1")
    assert run.config["layers"] == [8]
    assert run.config["mine"] == 3
    assert run.config["rlwandb"]["evaluation"]["env"] == "CorridorEnv"
    assert "hunter2" not in str(run.config)
    assert "password" not in run.config


def test_standalone_callbacks_log_to_one_run(fit: Any) -> None:
    parts = [MetricsCallback(CONFIG), EvaluationCallback(CONFIG, env=CorridorEnv, policy="q_network")]
    fit(TinyValidatedQ(), *parts, GradientsCallback(CONFIG))
    assert len(list(Path("wandb").glob("offline-run-*"))) == 1
    run = read_offline_run("wandb")
    keys = {key for row in run.history for key in row}
    assert {"train/loss", "eval/return_mean", "gradients/q_network.0.weight"} <= keys
    assert run.exit_code == 0


def test_run_is_offline_with_one_message_if_the_server_is_unreachable(
    fit: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_SILENT")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()
    callback = make_callback()
    fit(TinyQ(), callback)
    lines = [line for line in "".join(capfd.readouterr()).splitlines() if "rlwandb:" in line]
    at_the_start, at_the_end = lines
    assert "cannot be reached" in at_the_start
    assert "wandb sync" not in at_the_start
    assert f"wandb sync {callback.run_folder.absolute()}" in at_the_end
    assert read_offline_run(callback.run_folder).exit_code == 0


def test_other_loggers_still_receive_metrics(fit: Any) -> None:
    loggers = [CSVLogger("csv"), TensorBoardLogger("tb")]
    fit(LoggingQ(), make_callback(), logger=loggers, log_every_n_steps=2)
    assert "mine" in next(Path("csv").rglob("metrics.csv")).read_text()
    assert list(Path("tb").rglob("events.*"))
    assert read_offline_run("wandb").column("train/loss")


def test_wandb_logger_is_found_after_another_logger(fit: Any) -> None:
    fit(LoggingQ(), make_callback(), logger=[CSVLogger("csv"), WandbLogger()], log_every_n_steps=2)
    wandb.finish()
    assert read_offline_run("wandb").column("train/loss")


def test_fast_dev_run_creates_no_run_and_no_files(fit: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(TinyValidatedQ(), make_callback(), fast_dev_run=True)
    assert not Path("wandb").exists()
    assert not Path("rl_videos").exists()


class HasLearningRate(TinyValidatedQ):
    """Module with a learning rate for the learning rate finder."""

    def __init__(self, batches: int = 8) -> None:
        super().__init__(batches)
        self.lr = 0.1


@pytest.mark.parametrize("with_logger", [False, True])
def test_learning_rate_finder_creates_no_additional_run(with_logger: bool) -> None:
    logger = WandbLogger() if with_logger else False
    trainer = pl.Trainer(
        callbacks=[make_callback()], logger=logger, enable_progress_bar=False, accelerator="cpu", max_epochs=1
    )
    module = HasLearningRate()
    Tuner(trainer).lr_find(module, num_training=3)
    assert with_logger or not Path("wandb").exists()
    trainer.fit(module)
    wandb.finish()
    run = read_offline_run("wandb")
    assert len(run.column("video/best")) == len(run.column("eval/return_mean")) == 1
    assert len(list(Path("wandb").glob("offline-run-*"))) == 1


def test_sanity_check_does_not_evaluate(fit: Any) -> None:
    fit(TinyValidatedQ(), make_callback(), num_sanity_val_steps=1)
    assert len(read_offline_run("wandb").column("eval/return_mean")) == 1


@pytest.mark.parametrize("own_run", [True, False])
def test_validate_after_fit_logs_to_the_run_of_fit(fit: Any, own_run: bool) -> None:
    callback = make_callback()
    module = TinyValidatedQ()
    trainer = fit(module, callback, logger=False if own_run else WandbLogger())
    trainer.validate(module, verbose=False)
    if not own_run:
        wandb.finish()
    runs = [read_offline_run(folder) for folder in Path("wandb").glob("offline-run-*")]
    assert sum(len(run.column("eval/return_mean")) for run in runs) == 2
    assert len({file.name for file in Path("wandb").glob("offline-run-*/run-*.wandb")}) == 1
    assert all(run.exit_code == 0 for run in runs)


def test_validate_without_fit_evaluates(fit: Any) -> None:
    trainer = pl.Trainer(
        callbacks=[make_callback()],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    trainer.validate(TinyValidatedQ(), verbose=False)
    run = read_offline_run("wandb")
    assert len(run.column("video/best")) == 1
    assert run.exit_code == 0


def test_disabled_run_writes_no_files_and_publishes_metrics_to_monitor(fit: Any) -> None:
    trainer = fit(TinyValidatedQ(), make_callback(run={"mode": "disabled"}))
    assert float(trainer.callback_metrics["eval/length_mean"]) > 0
    assert not Path("rl_videos").exists()


def test_exception_does_not_finish_the_run_of_a_wandb_logger(fit: Any) -> None:
    logger = WandbLogger()
    with pytest.raises(RuntimeError, match="boom"):
        fit(RaisesInTraining(), make_callback(), logger=logger)
    logger.experiment.log({"after/crash": 1})
    wandb.finish()
    assert read_offline_run("wandb").column("after/crash") == [1]


def test_configured_step_metric_is_the_axis_of_callback_keys(fit: Any) -> None:
    fit(TinyValidatedQ(), make_callback(run={"step_metric": "time/env_steps"}))
    run = read_offline_run("wandb")
    assert run.metrics["train/loss"].step_metric == "time/env_steps"
    assert run.column("time/env_steps")[-1] == 80
