"""Runs that go on: the axes of rows that the user logs before the first row of the callback, and runs that are dead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wandb
from pytorch_lightning.callbacks import ModelCheckpoint
from wandb_server import WandbServer

from rlwandb_callbacks import MetricsCallback
from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.testing import TinyQ, read_offline_run
from rlwandb_callbacks.tracking.wandb_run import open_run, release_run

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


class LogsFirst(TinyQ):
    """Logs to W&B at the start of each batch, before the callback has written a row."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        wandb.log({"mine": batch_idx})


def rows_of(history: Any) -> list[tuple[int, int]]:
    return [(row["mine"], row["trainer/global_step"]) for row in history if "mine" in row]


def test_rows_of_a_resumed_run_have_the_axes_that_it_had(online: WandbServer) -> None:
    for part in range(2):
        run = open_run(RunConfig(project="p", id="resumed-axes"))
        run.log({"mine": part})
        run.log({"trainer/global_step": 719 + part, "time/env_steps": 400.0})
        assert release_run(run) is None
    assert rows_of(online.rows("resumed-axes")) == [(0, 0), (1, 719)]
    assert len(online.rows("resumed-axes")) == 4
    assert online.rows("resumed-axes")[2]["time/env_steps"] == 400


def test_rows_before_the_first_one_of_a_training_that_is_resumed_have_the_step_of_its_checkpoint(fit: Any) -> None:
    fit(TinyQ(batches=5), ModelCheckpoint(".", filename="first"), enable_checkpointing=True)
    callback = MetricsCallback({"metrics": {"every_n_steps": 3}})
    fit(LogsFirst(batches=4), callback, max_epochs=2, ckpt_path="first.ckpt")
    run = read_offline_run(callback.session.run_folder)
    assert rows_of(run.history) == [(0, 5), (1, 5), (2, 5), (3, 5)]
    assert run.column("_step") == list(range(len(run.history)))


def test_a_training_that_begins_at_zero_has_no_additional_row(fit: Any) -> None:
    callback = MetricsCallback({"metrics": {"every_n_steps": 2}})
    fit(LogsFirst(batches=4), callback)
    run = read_offline_run(callback.session.run_folder)
    assert rows_of(run.history) == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert [row["trainer/global_step"] for row in run.history if "train/loss" in row] == [1, 3]
    assert len(run.history) == 6


def test_a_training_after_teardown_opens_a_run_rather_than_logging_into_the_dead_one(fit: Any) -> None:
    dead = wandb.init()
    wandb.teardown()
    assert wandb.run is dead
    callback = MetricsCallback({"metrics": {"every_n_steps": 1}, "on_error": "raise"})
    fit(TinyQ(batches=3), callback)
    assert callback.session.run_folder != Path(dead.dir).parent
    assert len(read_offline_run(callback.session.run_folder).column("train/loss")) == 3
