"""Axes of trainings that are resumed, and of checkpoints that are evaluated."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from rlwandb_callbacks import EvaluationCallback, MetricsCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyActorCritic, TinyQ, TinyValidatedQ

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
AXES = ("trainer/global_step", "time/updates", "time/env_steps")


class Counts(TinyActorCritic):
    """Has a count that is in no checkpoint."""

    def __init__(self, batches: int = 8) -> None:
        super().__init__(batches)
        self.count = 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.count += 10


class Logs(Counts):
    """Logs its count."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("env_steps", float(self.count))
        return super().training_step(batch, batch_idx)


class Returns(Counts):
    """Returns its count."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {**super().training_step(batch, batch_idx), "total_env_steps": torch.tensor(self.count)}


class SavesCount(TinyQ):
    """Saves its count."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["count"] = self.env_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.env_steps = checkpoint["count"]


class FillsMemory(TinyQ):
    """Plays 25 random steps before training, which are in no checkpoint."""

    def on_train_start(self) -> None:
        self.env_steps += 25


def callback(tracker: MemoryTracker, every_n_steps: int = 1) -> MetricsCallback:
    return MetricsCallback({"on_error": "raise", "metrics": {"every_n_steps": every_n_steps}}, tracker=tracker)


@pytest.mark.parametrize("module", [TinyQ, Logs, Returns, SavesCount])
@pytest.mark.parametrize("every_n_steps", [1, 3])
def test_environment_steps_go_on_after_a_checkpoint(fit: Any, module: Any, every_n_steps: int) -> None:
    tracker = MemoryTracker()
    for epoch in (1, 2, 3):
        checkpoint = f"{epoch - 1}.ckpt" if epoch > 1 else None
        trainer = fit(module(batches=4), callback(tracker, every_n_steps), max_epochs=epoch, ckpt_path=checkpoint)
        trainer.save_checkpoint(f"{epoch}.ckpt")
    steps = dict(zip(tracker.column("time/updates"), tracker.column("time/env_steps"), strict=True))
    assert steps == {update: 10 * update for update in steps}
    assert max(steps) == 12


@pytest.mark.parametrize("module", [TinyQ, Logs, Returns, SavesCount])
def test_a_resumed_run_that_is_longer_than_the_first_before_its_first_row(fit: Any, module: Any) -> None:
    tracker = MemoryTracker()
    fit(module(batches=2), callback(tracker, 50)).save_checkpoint("first.ckpt")
    fit(module(batches=2), callback(tracker, 50), max_epochs=4, ckpt_path="first.ckpt")
    assert list(zip(tracker.column("time/updates"), tracker.column("time/env_steps"), strict=True)) == [
        (2, 20),
        (8, 80),
    ]


def test_environment_steps_before_training_are_added_in_each_run(fit: Any) -> None:
    tracker = MemoryTracker()
    fit(FillsMemory(batches=1), callback(tracker)).save_checkpoint("first.ckpt")
    fit(FillsMemory(batches=1), callback(tracker), max_epochs=2, ckpt_path="first.ckpt")
    assert tracker.column("time/env_steps") == [35, 70]


def test_a_checkpoint_within_an_epoch_has_the_count_of_its_own_batch(fit: Any) -> None:
    tracker = MemoryTracker()
    saving = ModelCheckpoint("checkpoints", every_n_train_steps=3, filename="{step}")
    fit(TinyQ(batches=5), callback(tracker, 50), saving, enable_checkpointing=True)
    resumed = MemoryTracker()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the data loader cannot be resumed
        fit(TinyQ(batches=5), callback(resumed), ckpt_path="checkpoints/step=3.ckpt")
    assert resumed.rows[0]["time/updates"] == 4
    assert resumed.rows[0]["time/env_steps"] == 40


def evaluate(callback: Any, path: str) -> None:
    """Evaluates a checkpoint by a new Trainer."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(**quiet, accelerator="cpu", callbacks=[callback])
    trainer.validate(TinyValidatedQ(batches=4), ckpt_path=path, verbose=False)


def evaluation_rows(tracker: MemoryTracker) -> list[list[float]]:
    return [[row[axis] for axis in AXES if axis in row] for row in tracker.rows if "eval/return_mean" in row]


SETTINGS: dict[str, Any] = {"video_logger": False, "return_logger": False, "on_error": "raise"}
PLAYED: dict[str, Any] = {"env": CorridorEnv, "policy": "q_network"}


@pytest.mark.parametrize("kind", [EvaluationCallback, WandbRLCallback])
def test_a_checkpoint_is_evaluated_at_the_step_of_the_evaluation_in_its_training(fit: Any, kind: Any) -> None:
    in_fit, afterwards = MemoryTracker(), MemoryTracker()
    saving = ModelCheckpoint("saved", save_top_k=-1, filename="{epoch}")
    training = WandbRLCallback(SETTINGS, **PLAYED, tracker=in_fit)
    trainer = fit(TinyValidatedQ(batches=4), training, saving, max_epochs=2, enable_checkpointing=True)
    trainer.save_checkpoint("last.ckpt")
    for path in ("saved/epoch=0.ckpt", "saved/epoch=1.ckpt", "last.ckpt"):
        evaluate(kind(SETTINGS, **PLAYED, tracker=afterwards), path)
    first, second = evaluation_rows(in_fit)
    assert [first, second] == [[3, 4, 40], [7, 8, 80]]
    assert evaluation_rows(afterwards) == [first, second, second]


def test_a_trainer_that_has_trained_evaluates_an_earlier_checkpoint_at_its_step(fit: Any) -> None:
    tracker = MemoryTracker()
    saving = ModelCheckpoint("saved", save_top_k=-1, filename="{epoch}")
    module = TinyValidatedQ(batches=4)
    trainer = fit(
        module, WandbRLCallback(SETTINGS, **PLAYED, tracker=tracker), saving, max_epochs=2, enable_checkpointing=True
    )
    tracker.rows.clear()
    trainer.validate(module, verbose=False)
    trainer.validate(module, ckpt_path="saved/epoch=0.ckpt", verbose=False)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module)
    assert evaluation_rows(tracker) == [[7, 8, 80], [3, 4, 40], [11, 12, 120]]


def test_a_checkpoint_without_our_counters_has_the_step_of_lightning(fit: Any) -> None:
    saving = ModelCheckpoint("saved", save_top_k=-1, filename="{epoch}")
    fit(TinyValidatedQ(batches=4), saving, max_epochs=2, enable_checkpointing=True).save_checkpoint("last.ckpt")
    tracker = MemoryTracker()
    for path in ("saved/epoch=0.ckpt", "saved/epoch=1.ckpt", "last.ckpt"):
        evaluate(EvaluationCallback(SETTINGS, **PLAYED, tracker=tracker), path)
    assert [row[:2] for row in evaluation_rows(tracker)] == [[3, 4], [7, 8], [7, 8]]
