"""Modules that log numbers themselves under the keys of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from caught_warnings import package_warnings
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger

from rlwandb_callbacks import EvaluationCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ, read_offline_run

THEIRS, OURS = -7.0, 4.0  # OURS: returns 2 to 6 of five episodes


class Policy(TinyValidatedQ):
    """Walks right; logs its own number under ``key``."""

    def __init__(self, key: str = "eval/return_mean", **options: Any) -> None:
        super().__init__()
        self.key, self.options = key, options

    def policy(self, observations: torch.Tensor) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=torch.tensor([[-50.0, 50.0]]).expand(len(observations), 2))

    def log_it(self) -> None:
        self.log(self.key, THEIRS, **self.options)


class InValidation(Policy):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log_it()


class InEpochOfValidation(Policy):
    def on_validation_epoch_end(self) -> None:
        self.log_it()


class WithoutValidation(Policy):
    validation_step = TinyQ.validation_step
    val_dataloader = TinyQ.val_dataloader


class InTraining(WithoutValidation):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log_it()
        return super().training_step(batch, batch_idx)


class AfterEpoch(WithoutValidation):
    def on_train_epoch_end(self) -> None:
        self.log_it()


class InCallbackMetrics(Policy):
    def on_validation_epoch_end(self) -> None:
        self.trainer.callback_metrics[self.key] = torch.tensor(THEIRS)


def evaluation(tracker: MemoryTracker | None, **settings: Any) -> EvaluationCallback:
    named = {"env": CorridorEnv, "policy": "policy", "episodes": 5, "every_n_steps": 8} | {
        "name": settings.pop("name", None)
    }
    return EvaluationCallback({"video_logger": False, "evaluation": named, **settings}, tracker=tracker)


@pytest.mark.parametrize(
    "module",
    [InValidation, InEpochOfValidation, InTraining, AfterEpoch, InCallbackMetrics],
    ids=lambda kind: kind.__name__,
)
@pytest.mark.parametrize("epochs", [1, 3])
def test_ours_steps_aside_and_checkpoints_judge_by_the_number_of_the_module(
    fit: Any, tmp_path: Path, module: Any, epochs: int
) -> None:
    tracker = MemoryTracker()
    best = ModelCheckpoint(tmp_path, monitor="eval/return_mean", mode="max")
    with pytest.warns(UserWarning, match="rlwandb") as caught:
        trainer = fit(module(), evaluation(tracker), best, enable_checkpointing=True, max_epochs=epochs)
    (message,) = package_warnings(caught)
    assert "eval/return_mean is also logged by the module" in message
    assert "that of the evaluation episodes is eval_rl/return_mean" in message
    assert tracker.column("eval/return_mean") == []
    assert tracker.column("eval_rl/return_mean") == [OURS] * epochs
    assert tracker.column("policy/entropy") == pytest.approx([0] * epochs)  # another group
    assert float(best.best_model_score) == THEIRS
    assert float(trainer.callback_metrics["eval/return_mean"]) == THEIRS


def test_chart_of_a_run_holds_the_number_of_the_module_alone(fit: Any, tmp_path: Path) -> None:
    callback = evaluation(None)
    with pytest.warns(UserWarning, match="is also logged by the module"):
        fit(InValidation(), callback, logger=WandbLogger(save_dir=tmp_path, offline=True), max_epochs=2)
    wandb.finish()
    run = read_offline_run(callback.session.run_folder)
    assert run.column("eval/return_mean") == [THEIRS, THEIRS]
    assert run.column("eval_rl/return_mean") == [OURS, OURS]
    assert [key for key in run.summary if key.startswith("eval/")] == ["eval/return_mean"]


class LogsToRun(WithoutValidation):
    def on_train_epoch_end(self) -> None:
        wandb.log({self.key: THEIRS})


def test_numbers_that_are_logged_to_the_run_itself_are_seen(fit: Any) -> None:
    callback = WandbRLCallback(
        {
            "video_logger": False,
            "evaluation": {"env": CorridorEnv, "policy": "policy", "episodes": 5, "every_n_steps": 8},
        },
        run={"mode": "offline"},
    )
    with pytest.warns(UserWarning, match="eval/return_mean is also logged by"):
        fit(LogsToRun(), callback, max_epochs=2)
    run = read_offline_run(callback.run_folder)
    assert (run.column("eval/return_mean"), run.column("eval_rl/return_mean")) == ([THEIRS, THEIRS], [OURS, OURS])


@pytest.mark.parametrize(
    ("key", "name", "naming", "moved"),
    [
        ("policy/entropy", None, None, "policy_rl/entropy"),
        ("eval/near/return_mean", "near", None, "eval_rl/near/return_mean"),
        ("eval/mean_reward", None, "sb3", "eval_rl/mean_reward"),
        ("eval/return_mean", None, "sb3", "eval_rl/mean_reward"),
    ],
)
def test_only_the_group_that_is_taken_moves(fit: Any, key: str, name: str | None, naming: str, moved: str) -> None:
    tracker = MemoryTracker(naming)
    with pytest.warns(UserWarning, match=f"{moved.partition('/')[0]}/… instead of"):
        fit(InValidation(key), evaluation(tracker, name=name, naming=naming))
    assert tracker.column(moved)
    assert tracker.column(key) == []
    assert len({key.partition("/")[0] for row in tracker.rows for key in row if "_rl/" in key}) == 1


@pytest.mark.parametrize("key", ["eval/loss", "eval/far/return_mean", "return_mean"])
def test_other_keys_move_nothing(fit: Any, key: str) -> None:
    tracker = MemoryTracker()
    trainer = fit(InValidation(key), evaluation(tracker), max_epochs=2)
    assert tracker.column("eval/return_mean") == [OURS, OURS]
    assert float(trainer.callback_metrics["eval/return_mean"]) == OURS


def test_the_moved_number_can_be_monitored_and_moves_from_the_start(fit: Any, tmp_path: Path) -> None:
    tracker = MemoryTracker()
    best = ModelCheckpoint(tmp_path, monitor="eval_rl/return_mean", mode="max", save_last=True)
    fit(InValidation(), evaluation(tracker), best, enable_checkpointing=True)
    assert float(best.best_model_score) == OURS
    assert tracker.column("eval_rl/return_mean") == [OURS]


def test_a_resumed_training_goes_on_under_the_moved_keys(fit: Any, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, save_last=True)
    with pytest.warns(UserWarning, match="is also logged"):
        fit(AfterEpoch(), evaluation(MemoryTracker()), saved, enable_checkpointing=True, max_epochs=2)
    tracker = MemoryTracker()
    again = ModelCheckpoint(tmp_path, save_last=True)
    path = str(tmp_path / "last.ckpt")
    fit(AfterEpoch(), evaluation(tracker), again, enable_checkpointing=True, max_epochs=3, ckpt_path=path)
    assert (tracker.column("eval/return_mean"), tracker.column("eval_rl/return_mean")) == ([], [OURS])
