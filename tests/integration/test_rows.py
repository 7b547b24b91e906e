"""Rows of a training: one for each step, beside rows that the module logs itself."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
import wandb
from failing_modules import RaisesInTraining

from rlwandb_callbacks import GradientsCallback, MetricsCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, read_offline_run

SETTINGS = {
    "on_error": "raise",
    "metrics": {"every_n_steps": 1},
    "video_logger": False,
    "evaluation": {"env": CorridorEnv, "policy": "q_network", "episodes": 2, "every_n_steps": 4},
}


class LogsItself(TinyQ):
    """Logs a row of its own with ``step=`` in each batch, and the end of an episode."""

    where = "training_step"

    def log_own(self, where: str, batch_idx: int) -> None:
        if where == self.where and wandb.run is not None:
            wandb.log({"mine": batch_idx}, step=batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log_own("training_step", batch_idx)
        return {**super().training_step(batch, batch_idx), "episode_return": 1.0, "episode_length": 2}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.log_own("on_train_batch_start", batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log_own("on_train_batch_end", batch_idx)


@pytest.mark.filterwarnings("error:.*W&B dropped")
@pytest.mark.parametrize("where", ["training_step", "on_train_batch_start", "on_train_batch_end"])
def test_rows_that_the_module_logs_with_a_step_are_kept(fit: Any, where: str) -> None:
    module = LogsItself(batches=20)
    module.where = where
    run: Any = wandb.init()
    fit(module, WandbRLCallback(SETTINGS))
    run.finish()
    logged = read_offline_run("wandb")
    assert logged.column("mine") == list(range(20))
    assert len(logged.column("train/loss")) == len(logged.column("rollout/return_mean")) == 20
    assert len(logged.column("eval/return_mean")) == 5


def test_a_dropped_row_of_the_module_is_one_warning(fit: Any) -> None:
    class EachTenth(LogsItself):
        def log_own(self, where: str, batch_idx: int) -> None:
            if where == self.where and batch_idx % 10 == 9:
                wandb.log({"mine": batch_idx // 10}, step=batch_idx // 10)

    run: Any = wandb.init()
    with pytest.warns(UserWarning, match=r"W&B dropped the row with 'mine' .* step=0, as rows of this") as caught:
        fit(EachTenth(batches=40), WandbRLCallback(SETTINGS))
    run.finish()
    assert read_offline_run("wandb").column("mine") == []
    assert len([each for each in caught if "W&B dropped" in str(each.message)]) == 1


def test_everything_that_is_due_at_a_step_is_one_row(fit: Any) -> None:
    tracker = MemoryTracker()
    settings = {**SETTINGS, "gradient_logger": True, "gradients": {"log_freq": 2}, "plasticity": {"enabled": True}}
    fit(LogsItself(batches=8), WandbRLCallback(settings, tracker=tracker, return_logger=False))
    rows = Counter(row["time/updates"] for row in tracker.rows)
    assert rows == dict.fromkeys(range(1, 9), 1)
    row = next(row for row in tracker.rows if row["time/updates"] == 4)
    assert {"train/loss", "rollout/return_mean", "eval/return_mean", "grad_norm/total"} < row.keys()


def test_separate_callbacks_with_one_session_share_a_row(fit: Any) -> None:
    tracker = MemoryTracker()
    first = MetricsCallback({"metrics": {"every_n_steps": 1}, "on_error": "raise"}, tracker=tracker)
    fit(TinyQ(batches=3), first, GradientsCallback(session=first.session))
    assert [row["time/updates"] for row in tracker.rows] == [1, 2, 3]


def test_rows_with_gradients_are_written_on_another_thread(fit: Any) -> None:
    class Named(MemoryTracker):
        def write(self, axes: Any, values: Any) -> None:
            super().write(axes, values)
            self.rows[-1]["thread"] = threading.current_thread().name

    tracker = Named()
    settings = {"gradient_logger": True, "gradients": {"log_freq": 2}, "metrics": {"every_n_steps": 1}}
    fit(TinyQ(batches=4), WandbRLCallback(settings, tracker=tracker, on_error="raise"))
    threads = {row["time/updates"]: row["thread"].startswith("rlwandb") for row in tracker.rows}
    assert list(threads) == [1, 2, 3, 4]
    assert (threads[1], threads[2], threads[4]) == (False, True, True)


def test_numbers_are_kept_if_gradients_cannot_be_read(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> Any:
        raise ValueError("boom")

    monkeypatch.setattr("rlwandb_callbacks.callbacks.gradients.callback.tensor_row", fail)
    tracker = MemoryTracker()
    settings = {"gradient_logger": True, "gradients": {"log_freq": 1}, "metrics": {"every_n_steps": 1}}
    with pytest.warns(UserWarning, match="Logging gradients failed.*boom"):
        fit(TinyQ(batches=4), WandbRLCallback(settings, tracker=tracker))
    assert len(tracker.column("train/loss")) == 4


def test_the_row_of_a_batch_is_written_although_the_next_one_fails(fit: Any) -> None:
    tracker = MemoryTracker()
    with pytest.raises(RuntimeError, match="boom"):
        fit(RaisesInTraining(batch_idx=2), MetricsCallback({"metrics": {"every_n_steps": 1}}, tracker=tracker))
    assert [row["time/updates"] for row in tracker.rows] == [1, 2]
