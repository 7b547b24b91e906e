"""Hyper-parameters and settings as people hold them: OmegaConf, sweeps, the settings of the run."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import wandb
from omegaconf import OmegaConf
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlwandb_callbacks import ConfigError, EvaluationCallback, MetricsCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ, read_offline_run

SETTINGS: dict[str, Any] = {"on_error": "raise", "metrics": {"every_n_steps": 2}}
EVALUATION = {**SETTINGS, "video_logger": False, "evaluation": {"episodes": 1, "policy": "q_network"}}


class Configured(TinyQ):
    """A module whose hyper-parameters are a config."""

    def __init__(self, cfg: Any, batches: int = 2, **others: Any) -> None:
        super().__init__(batches)
        self.save_hyperparameters()


class Unprintable:
    """A hyper-parameter that has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def config_of_run(fit: Any, module: pl.LightningModule) -> dict[str, Any]:
    fit(module, MetricsCallback(SETTINGS))
    return read_offline_run("wandb").config


def test_what_omegaconf_cannot_resolve_is_logged_as_text(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    cfg = OmegaConf.create({
        "lr": 0.1,
        "layers": [64, "${width}", "???"],
        "width": 32,
        "seed": "???",
        "folder": "${hydra:runtime.output_dir}",
        "home": "${oc.env:RLWANDB_UNSET}",
        "optim": {"lr": "${lr}", "schedule": "${missing.key}"},
        "endpoint": "${oc.env:MY_TOKEN}",
    })  # fmt: skip
    config = config_of_run(fit, Configured(cfg))
    assert config["cfg"] == {
        "lr": 0.1,
        "layers": [64, 32, "???"],
        "width": 32,
        "seed": "???",
        "folder": "${hydra:runtime.output_dir}",
        "home": "${oc.env:RLWANDB_UNSET}",
        "optim": {"lr": 0.1, "schedule": "${missing.key}"},
        "endpoint": "${oc.env:MY_TOKEN}",
    }
    assert "hunter2" not in json.dumps(config)


def test_a_config_may_be_the_hyper_parameters_themselves(fit: Any) -> None:
    class Whole(TinyQ):
        def __init__(self, cfg: Any) -> None:
            super().__init__(2)
            self.save_hyperparameters(cfg)

    config = config_of_run(fit, Whole(OmegaConf.create({"batches": 2, "n": 8, "layers": ["${n}", 8], "gamma": 0.9})))
    assert (config["layers"], config["gamma"]) == ([8, 8], 0.9)


def test_numbers_and_namespaces_keep_their_types(fit: Any) -> None:
    cfg = Namespace(lr=np.float32(0.5), steps=np.int64(3), api_key="hunter2", net=Namespace(layers=(8, 8)))
    assert config_of_run(fit, Configured(cfg))["cfg"] == {"lr": 0.5, "steps": 3, "net": {"layers": [8, 8]}}


def test_hyper_parameters_that_cannot_be_logged_do_not_end_training(fit: Any) -> None:
    callback = MetricsCallback({**SETTINGS, "on_error": "warn"})
    with pytest.warns(UserWarning, match="Logging the hyper-parameters failed"):
        fit(Configured({"lr": 0.1}, other=Unprintable()), callback)
    assert read_offline_run("wandb").column("train/loss")


def test_settings_are_read_from_the_config_of_a_sweep(fit: Any) -> None:
    with wandb.init(config={"lr": 0.1, "env_id": "x", "plot_logger": False, "evaluation.episodes": 1}):
        wandb.config.update({"evaluation": {"seed": 5}, "gamma": 0.9})
        callback = WandbRLCallback(wandb.config, env=CorridorEnv, policy="q_network", video_logger=False)
        fit(TinyValidatedQ(), callback)
        again = WandbRLCallback(wandb.config)  # which now also holds the settings of the callback
    assert (callback.cfg.plot_logger, again.cfg.evaluation.episodes) == (False, 1)
    assert (callback.cfg.evaluation.episodes, callback.cfg.evaluation.seed) == (1, 5)
    assert read_offline_run("wandb").column("eval/return_mean")


def test_a_misspelt_setting_of_a_sweep_is_named() -> None:
    with (
        wandb.init(config={"plot_loger": False, "learning_rate": 0.1, "evaluation": {"epsiodes": 4}}),
        pytest.warns(UserWarning, match="'plot_loger' in wandb.config is not a setting.*'plot_logger'"),
        pytest.raises(ConfigError, match="Unknown key 'epsiodes'"),
    ):
        WandbRLCallback(wandb.config)


def test_a_hyper_parameter_with_the_name_of_a_section_is_left_out() -> None:
    config = {"dataset": "d4rl", "metrics": ["loss"], "videos": {"crf": 30}, "run": None}
    with (
        wandb.init(config=config),
        pytest.warns(UserWarning, match="'dataset' in wandb.config is 'd4rl'; it is not used as a setting"),
        pytest.warns(UserWarning, match="'metrics' in wandb.config"),
    ):
        assert WandbRLCallback(wandb.config).cfg.videos.crf == 30


def test_the_config_of_no_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Call wandb.init\(\) first"):
        WandbRLCallback(wandb.config)


def test_the_run_has_a_job_type_and_a_folder(fit: Any) -> None:
    callback = MetricsCallback({**SETTINGS, "run": {"job_type": "train", "dir": Path("runs") / "here"}})
    job_types = []

    class Looks(TinyQ):
        def on_train_start(self) -> None:
            job_types.append(wandb.run.job_type if wandb.run else None)

    fit(Looks(2), callback)
    assert job_types == ["train"]
    assert callback.session.run_folder is not None
    assert callback.session.run_folder.parent.resolve() == (Path("runs") / "here" / "wandb").resolve()
    assert not Path("wandb").exists()


def rows_of_csv(folder: str) -> list[dict[str, str]]:
    with next(Path(folder).rglob("metrics.csv")).open() as file:
        return list(csv.DictReader(file))


def test_other_loggers_get_the_numbers_of_evaluations(fit: Any) -> None:
    tracker = MemoryTracker()
    loggers = [CSVLogger("csv"), TensorBoardLogger("tb")]
    callback = EvaluationCallback(EVALUATION, env=CorridorEnv, tracker=tracker)
    fit(TinyValidatedQ(4), callback, logger=loggers, max_epochs=2)
    rows = [row for row in rows_of_csv("csv") if row.get("eval/return_mean")]
    assert [float(row["eval/return_mean"]) for row in rows] == pytest.approx(tracker.column("eval/return_mean"))
    assert [int(row["step"]) for row in rows] == [3, 7]
    events = EventAccumulator(str(next(Path("tb").rglob("events.*")).parent)).Reload()
    assert [event.value for event in events.Scalars("eval/return_mean")] == pytest.approx(
        tracker.column("eval/return_mean")
    )
    assert [event.step for event in events.Scalars("eval/length_mean")] == [3, 7]


def test_other_loggers_get_the_names_of_the_preset_and_may_fail(fit: Any) -> None:
    class Fails(CSVLogger):
        def log_metrics(self, metrics: Any, step: Any = None) -> None:
            raise OSError("disk full")

    settings = {**EVALUATION, "naming": "sb3", "on_error": "warn"}
    callback = EvaluationCallback(settings, env=CorridorEnv, tracker=MemoryTracker("sb3"))
    fit(TinyValidatedQ(4), callback, logger=CSVLogger("csv"))
    assert [row["eval/mean_reward"] for row in rows_of_csv("csv") if row.get("eval/mean_reward")]
    callback = EvaluationCallback(settings, env=CorridorEnv, tracker=(tracker := MemoryTracker("sb3")))
    with pytest.warns(UserWarning, match="Passing the evaluation to other loggers failed"):
        fit(TinyValidatedQ(4), callback, logger=[Fails("csv2"), CSVLogger("csv3")])
    assert tracker.column("eval/mean_reward")
    assert [row["eval/mean_reward"] for row in rows_of_csv("csv3") if row.get("eval/mean_reward")]
