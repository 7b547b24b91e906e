"""Rows under the names of other libraries, in a real run."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import wandb
from pytorch_lightning.loggers import WandbLogger

from rlwandb_callbacks import MetricsCallback, WandbRLCallback
from rlwandb_callbacks.core.key_names import PRESETS, Naming
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ, read_offline_run

SETTINGS = {"on_error": "raise", "metrics": {"every_n_steps": 2}, "evaluation": {"episodes": 2}}
AXES = {"time/env_steps", "time/updates", "trainer/global_step"}


def train(fit: Any, preset: str | None, **keywords: Any) -> None:
    pl.seed_everything(3, verbose=False)
    settings = {**SETTINGS, "naming": preset, "video_logger": False}
    callback = WandbRLCallback(settings, env=CorridorEnv, policy="q_network", **keywords)
    checkpoint = pl.callbacks.ModelCheckpoint("best", monitor="eval/return_mean", mode="max")
    fit(TinyValidatedQ(batches=4), callback, checkpoint, enable_checkpointing=True)
    assert checkpoint.best_model_score is not None


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_rename_keys_of_rows_but_not_of_monitors(fit: Any, preset: str) -> None:
    naming, plain = Naming(preset), MemoryTracker()
    train(fit, None, tracker=plain)
    train(fit, preset, run={"step_metric": "time/env_steps"})
    run = read_offline_run("wandb")
    renamed = [{key for key in row if not key.startswith("_")} for row in run.history]
    assert renamed == [{naming.key(key) for key in row} for row in plain.rows]
    for key in ("train/loss", "eval/return_mean", "time/env_steps", "time/updates", "trainer/global_step"):
        assert run.column(naming.key(key)) == plain.column(key), key
    values = set().union(*plain.rows) - AXES
    assert {run.metrics[naming.key(key)].step_metric for key in values} == {naming.key("time/env_steps")}
    assert {run.metrics[naming.key(key)].step_metric for key in AXES} == {""}


def test_a_tracker_receives_renamed_keys(fit: Any) -> None:
    tracker = MemoryTracker(naming="di-engine")
    fit(TinyQ(batches=2), MetricsCallback({**SETTINGS, "naming": "di-engine"}, tracker=tracker))
    assert tracker.column("target q_value")
    assert tracker.column("train iter") == [2]
    with pytest.raises(ValueError, match="'reward' is not a valid key"):
        tracker.write({"trainer/global_step": 0}, {"reward": None})  # type: ignore[dict-item]  # on purpose


def test_a_key_that_the_module_logs_under_its_new_name_is_written_once(fit: Any) -> None:
    class Logs(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("losses/td_error", 7.0)
            return super().training_step(batch, batch_idx)

    callback = MetricsCallback({"on_error": "raise", "naming": "cleanrl", "metrics": {"every_n_steps": 1}})
    fit(Logs(batches=3), callback, logger=WandbLogger(), log_every_n_steps=1)
    wandb.finish()
    assert read_offline_run("wandb").column("losses/td_error") == [7.0, 7.0, 7.0]
