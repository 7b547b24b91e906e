"""Checkpoints, early stopping and schedulers that read the numbers of an evaluation, without a validation loop."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, WeightAveraging

from rlwandb_callbacks import Episode, EvaluationCallback
from rlwandb_callbacks.callbacks.evaluation.early_stopping import UncountedReads
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ, read_offline_run

KEY = "eval/return_mean"


class ImprovesLate(TinyQ):
    """Module without validation: returns -20 before the 20th step, and 3 from then on; 8 batches an epoch."""

    better_from = 20

    def __init__(self, **options: Any) -> None:
        super().__init__(batches=8, **options)

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        right = 1.0 if self.trainer.global_step >= self.better_from else -1.0
        return torch.tensor([[0.0, right]]).expand(len(observations), 2)


class FailingEnv(CorridorEnv):
    """Corridor that cannot be stepped."""

    works_for = 0

    def step(self, action: Any) -> Any:
        if self.works_for <= 0:
            raise RuntimeError("simulator crashed")
        return super().step(action)


def updates_of_evaluations(
    fit: Any, module: Any, *others: Any, every_n_steps: int = 10_000, env: Any = CorridorEnv, **trainer: Any
) -> list[int]:
    tracker = MemoryTracker()
    evaluation = {"env": env, "policy": "policy", "episodes": 3, "every_n_steps": every_n_steps}
    cfg = {"evaluation": evaluation, "video_logger": False, "return_logger": False, "on_error": "raise"}
    fit(module, *others, EvaluationCallback(cfg, tracker=tracker), **{"max_epochs": 3, **trainer})
    return [int(row["time/updates"]) for row in tracker.rows if KEY in row]


def checkpoint(**options: Any) -> ModelCheckpoint:
    return ModelCheckpoint("best", monitor=KEY, mode="max", filename="{step}", **options)


@pytest.mark.parametrize(
    ("options", "every_n_steps", "updates", "files"),
    [
        ({}, 10_000, [8, 24], ["step=24.ckpt"]),
        ({"save_on_train_epoch_end": True}, 10_000, [8, 24], ["step=24.ckpt"]),
        ({"save_last": True}, 10_000, [8, 24], ["last.ckpt", "step=24.ckpt"]),
        ({"every_n_epochs": 3}, 10_000, [24], ["step=24.ckpt"]),
        ({}, 5, [5, 8, 10, 15, 16, 20, 24], ["step=24.ckpt"]),
        ({"every_n_train_steps": 6}, 10_000, [6, 24], ["step=24.ckpt"]),
        ({"every_n_train_steps": 6}, 4, [4, 6, 8, 12, 16, 18, 20, 24], ["step=24.ckpt"]),
    ],
    ids=["default", "epoch end", "save_last", "third epoch", "mid-epoch evaluations", "steps", "steps apart"],
)
def test_checkpoint_keeps_the_policy_of_the_last_evaluation(
    fit: Any, options: dict[str, Any], every_n_steps: int, updates: list[int], files: list[str]
) -> None:
    saved = checkpoint(**options)
    assert (
        updates_of_evaluations(fit, ImprovesLate(), saved, every_n_steps=every_n_steps, enable_checkpointing=True)
        == updates
    )
    assert float(saved.best_model_score or 0) == 3
    assert sorted(path.name for path in Path("best").iterdir()) == files


def test_a_checkpoint_file_never_has_the_number_of_older_weights(fit: Any) -> None:
    class BestAtFive(ImprovesLate):
        def policy(self, observations: torch.Tensor) -> torch.Tensor:
            right = 1.0 if self.trainer.global_step == 5 else -1.0
            return torch.tensor([[0.0, right]]).expand(len(observations), 2)

    saved = checkpoint()
    updates_of_evaluations(fit, BestAtFive(), saved, every_n_steps=5, enable_checkpointing=True)
    assert float(saved.best_model_score or 0) == -20, "the weights of step 8 do not have the return of step 5"


@pytest.mark.parametrize("options", [{"max_steps": 21, "max_epochs": -1}, {"max_epochs": 3, "limit_train_batches": 7}])
def test_last_evaluation_comes_before_the_checkpoint_whatever_ends_training(fit: Any, options: dict[str, Any]) -> None:
    saved = checkpoint()
    updates = updates_of_evaluations(fit, ImprovesLate(), saved, enable_checkpointing=True, **options)
    assert updates[-1] == 21
    assert saved.best_model_path.endswith("step=21.ckpt")


def test_training_that_the_module_stops_is_evaluated_before_the_checkpoint(fit: Any) -> None:
    class Stops(ImprovesLate):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.trainer.should_stop = self.trainer.global_step == 20
            return super().training_step(batch, batch_idx)

    saved = checkpoint()
    assert updates_of_evaluations(fit, Stops(), saved, enable_checkpointing=True, max_epochs=9)[-1] == 21
    assert saved.best_model_path.endswith("step=21.ckpt")


def test_checkpoint_that_waits_for_validation_is_warned_of(fit: Any) -> None:
    with pytest.warns(UserWarning, match="saves when validation ends, and this training has no validation loop"):
        updates_of_evaluations(
            fit, ImprovesLate(), checkpoint(save_on_train_epoch_end=False), enable_checkpointing=True
        )


@pytest.mark.parametrize("strict", [True, False])
def test_early_stopping_has_a_new_number_at_each_epoch(fit: Any, strict: bool) -> None:
    stopping = EarlyStopping(KEY, mode="max", patience=2, strict=strict)
    assert updates_of_evaluations(fit, ImprovesLate(), stopping, max_epochs=9) == [8, 16, 24, 32, 40]
    assert float(stopping.best_score) == 3


class WithPlateau(ImprovesLate):
    """Module with a learning rate that falls on a plateau of the return."""

    interval, mode = "epoch", "max"

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=self.mode, patience=1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "monitor": KEY, "interval": self.interval},
        }


@pytest.mark.parametrize(("interval", "updates"), [("epoch", [8, 16, 24]), ("step", [1, 24])])
def test_plateau_scheduler_finds_a_number(fit: Any, interval: str, updates: list[int]) -> None:
    module = WithPlateau()
    module.interval = interval
    assert updates_of_evaluations(fit, module) == updates


@pytest.mark.parametrize("mode", ["max", "min"])
def test_failing_evaluations_end_no_training_and_lower_no_learning_rate(fit: Any, mode: str) -> None:
    module = WithPlateau()
    module.mode = mode
    stopping = EarlyStopping(KEY, mode=mode, patience=1)
    cfg = {"evaluation": {"env": FailingEnv, "policy": "policy", "episodes": 2}, "video_logger": False}
    with pytest.warns(UserWarning, match="simulator crashed"):
        trainer = fit(module, stopping, EvaluationCallback(cfg, tracker=MemoryTracker()), max_epochs=6)
    assert trainer.global_step == 48
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1.0
    assert math.isfinite(trainer.callback_metrics[KEY])


def test_number_that_is_not_finite_ends_no_training(fit: Any) -> None:
    class NaNReward(CorridorEnv):
        def step(self, action: Any) -> Any:
            observation, _, *others = super().step(action)
            return observation, float("inf"), *others

    stopping = EarlyStopping(KEY, mode="max", patience=9)
    cfg = {"evaluation": {"env": NaNReward, "policy": "policy", "episodes": 2}, "video_logger": False}
    cfg["return_logger"] = False
    with pytest.warns(UserWarning, match=r"eval/return_mean is monitored, and an evaluation has no finite number"):
        trainer = fit(ImprovesLate(), stopping, EvaluationCallback(cfg, tracker=MemoryTracker()), max_epochs=2)
    assert trainer.global_step == 16
    assert math.isfinite(trainer.callback_metrics[KEY])


@pytest.mark.parametrize(("mode", "threshold"), [("max", -100.0), ("max", 0.0), ("max", 5.0), ("min", 100.0)])
def test_a_missing_number_is_not_taken_for_divergence(fit: Any, mode: str, threshold: float) -> None:
    stopping = EarlyStopping(KEY, mode=mode, patience=1, divergence_threshold=threshold)
    cfg = {"evaluation": {"env": FailingEnv, "policy": "policy", "episodes": 2}, "video_logger": False}
    with pytest.warns(UserWarning, match="simulator crashed"):
        trainer = fit(ImprovesLate(), stopping, EvaluationCallback(cfg, tracker=MemoryTracker()), max_epochs=4)
    assert trainer.global_step == 32
    assert stopping.wait_count == 0


class Breakable(CorridorEnv):
    """Corridor that works until it is broken; ``reward`` is the one that it has then, None for an error."""

    is_broken = False
    reward: float | None = None

    def step(self, action: Any) -> Any:
        observation, reward, *others = super().step(action)
        if self.is_broken and self.reward is None:
            raise RuntimeError("simulator crashed")
        return observation, self.reward if self.is_broken else reward, *others


class BreaksEnv(ImprovesLate):
    """Module that breaks the corridor after its first epoch."""

    def on_train_epoch_start(self) -> None:
        Breakable.is_broken = self.current_epoch > 0


@pytest.mark.parametrize(("reward", "warning"), [(None, "simulator crashed"), (math.nan, "has no finite number")])
@pytest.mark.parametrize("patience", [1, 3])
def test_evaluations_without_a_number_do_not_count_for_patience(
    fit: Any, monkeypatch: pytest.MonkeyPatch, reward: float | None, warning: str, patience: int
) -> None:
    monkeypatch.setattr(Breakable, "is_broken", False)
    monkeypatch.setattr(Breakable, "reward", reward)
    stopping = EarlyStopping(KEY, mode="max", patience=patience)
    evaluation = {"env": Breakable, "policy": "policy", "episodes": 1}
    callback = EvaluationCallback({"evaluation": evaluation, "video_logger": False}, tracker=MemoryTracker())
    with pytest.warns(UserWarning, match=warning):
        trainer = fit(BreaksEnv(), stopping, callback, max_epochs=6)
    assert trainer.global_step == 48
    assert stopping.best_score == -20


def test_reads_of_numbers_count_for_patience_after_a_failed_evaluation() -> None:
    counts, stopping = UncountedReads(), EarlyStopping(KEY, mode="max", patience=3)
    trainer = SimpleNamespace(callbacks=[stopping])
    stopping.wait_count = 1
    counts.update(trainer, missing={KEY}, found=set())
    counts.update(trainer, missing={KEY}, found=set())
    assert stopping.wait_count == 0, "two failed evaluations before one read"
    stopping.wait_count += 1
    counts.update(trainer, missing={KEY}, found=set())
    counts.update(trainer, missing=set(), found={KEY})
    assert stopping.wait_count == 1, "the read will find a number after all"
    counts.update(trainer, missing=set(), found={KEY})
    assert stopping.wait_count == 1


def test_a_return_beyond_the_threshold_still_counts_as_divergence(fit: Any) -> None:
    stopping = EarlyStopping(KEY, mode="max", patience=9, divergence_threshold=-10.0)
    assert updates_of_evaluations(fit, ImprovesLate(), stopping, max_epochs=4)[0] == 8
    assert stopping.stopped_epoch == 0
    assert stopping.best_score == -math.inf, "the return of -20 is read once, and ends the training"


class GivesEpisodes(TinyValidatedQ):
    """Returns an episode from validation whose return is not a number."""

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        episode = Episode(actions=np.zeros(2, np.int64), rewards=np.array([1.0, math.nan]), terminated=True)
        return {"episodes": [episode]}


def test_a_return_of_given_episodes_that_is_not_finite_ends_no_training(fit: Any) -> None:
    stopping = EarlyStopping(KEY, mode="max", patience=9)
    callback = EvaluationCallback({"video_logger": False, "return_logger": False}, tracker=MemoryTracker())
    with pytest.warns(UserWarning, match=r"eval/return_mean is monitored, and an evaluation has no finite number"):
        trainer = fit(GivesEpisodes(batches=8), stopping, callback, max_epochs=3)
    assert trainer.global_step == 24
    assert math.isfinite(trainer.callback_metrics[KEY])


def test_numbers_are_published_before_anything_is_written(fit: Any) -> None:
    class Watched(MemoryTracker):
        def write(self, axes: Any, values: Any) -> None:
            seen.extend([published()] if KEY in values else [])
            super().write(axes, values)

    seen: list[float | None] = []
    module = ImprovesLate()

    def published() -> float | None:
        return module.trainer.callback_metrics.get(KEY)

    cfg = {"evaluation": {"env": CorridorEnv, "policy": "policy", "episodes": 3}, "video_logger": False}
    callback = EvaluationCallback(cfg, tracker=Watched())
    callback.session.listeners.append(lambda _, numbers: seen.extend([published()] if KEY in numbers else []))
    fit(module, callback)
    assert seen == [-20.0, -20.0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("the run is gone")])
def test_what_is_monitored_does_not_depend_on_the_tracker(fit: Any, error: Exception) -> None:
    class Failing(MemoryTracker):
        def write(self, axes: Any, values: Any) -> None:
            raise error

    def train(tracker: MemoryTracker, folder: str) -> tuple[int, list[float], str]:
        saved = ModelCheckpoint(folder, monitor=KEY, mode="max", filename="{step}")
        stopping = EarlyStopping(KEY, mode="max", patience=2)
        torch.manual_seed(0)
        module = ImprovesLate()
        cfg = {"evaluation": {"env": CorridorEnv, "policy": "policy", "episodes": 3}, "video_logger": False}
        trainer = fit(
            module, saved, stopping, EvaluationCallback(cfg, tracker=tracker), enable_checkpointing=True, max_epochs=9
        )
        weights = torch.cat([value.flatten() for value in module.state_dict().values()]).tolist()
        return trainer.global_step, weights, Path(saved.best_model_path).name

    with pytest.warns(UserWarning, match="Writing a row failed") as caught:
        steps, weights, best = train(Failing(), "failing")
    assert (steps, best) == (40, "step=24.ckpt")
    assert (steps, weights, best) == train(MemoryTracker(), "working")
    assert len([each for each in caught if "Writing a row failed" in str(each.message)]) == 1


def test_early_stopping_at_the_end_of_training_epochs_finds_a_number_before_the_first_validation(fit: Any) -> None:
    class Validated(TinyValidatedQ):
        def policy(self, observations: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, 1.0]]).expand(len(observations), 2)

    stopping = EarlyStopping(KEY, mode="max", check_on_train_epoch_end=True)
    updates = updates_of_evaluations(fit, Validated(batches=8), stopping, check_val_every_n_epoch=2, max_epochs=4)
    assert updates == [8, 16, 32]


def test_without_monitors_only_the_last_epoch_is_evaluated_at_its_end(fit: Any) -> None:
    assert updates_of_evaluations(fit, ImprovesLate(), LearningRateMonitor(), logger=True) == [24]


def test_average_of_the_last_update_is_evaluated_once(fit: Any) -> None:
    assert updates_of_evaluations(fit, ImprovesLate(), WeightAveraging()) == [24]


@pytest.mark.parametrize(
    ("make_monitor", "every_n_steps", "line"),
    [
        (
            lambda: EarlyStopping(KEY, mode="max", patience=9),
            10_000,
            (
                "EarlyStopping reads eval/return_mean. The first value comes after 1 epoch or 10,000 updates "
                "(evaluation.every_n_steps), whichever is earlier, and there is a new one each time that EarlyStopping "
                "reads it."
            ),
        ),
        (
            lambda: checkpoint(every_n_train_steps=6),
            4,
            (
                "ModelCheckpoint reads eval/return_mean. The first value comes after 6 steps or 4 updates "
                "(evaluation.every_n_steps), whichever is earlier."
            ),
        ),
    ],
)
def test_fit_start_says_when_the_first_number_comes(
    fit: Any, caplog: pytest.LogCaptureFixture, make_monitor: Any, every_n_steps: int, line: str
) -> None:
    caplog.set_level(logging.INFO)
    monitor = make_monitor()
    updates_of_evaluations(fit, ImprovesLate(), monitor, every_n_steps=every_n_steps, enable_checkpointing=True)
    assert [text for text in caplog.messages if text.startswith("rlwandb: ")] == [f"rlwandb: {line}"]


class ReturnsBecomeEqual(ImprovesLate):
    """Has equal returns after the first evaluation, so that with six episodes their interval is unknown."""

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        right = 1.0 if self.trainer.global_step == 8 else -1.0
        return torch.tensor([[0.0, right]]).expand(len(observations), 2)


def test_the_summary_of_a_run_has_no_number_of_an_earlier_evaluation(fit: Any) -> None:
    settings = {"env": CorridorEnv, "policy": "policy", "episodes": 6, "every_n_steps": 8}
    callback = EvaluationCallback({"evaluation": settings, "video_logger": False, "return_logger": False})
    fit(ReturnsBecomeEqual(), callback, max_epochs=2)
    run = read_offline_run(callback.session.run_folder)
    assert run.column("eval/return_iqm_low") == [pytest.approx(0.668398), pytest.approx(math.nan, nan_ok=True)]
    assert math.isnan(run.summary["eval/return_iqm_low"])
    assert run.summary["eval/return_iqm"] == run.summary["eval/return_max"] == -20.0


def test_a_number_that_an_evaluation_lacks_is_not_that_of_older_weights(fit: Any) -> None:
    saved = ModelCheckpoint("all", monitor="eval/return_iqm_low", mode="max", filename="{step}", save_top_k=-1)
    settings = {"env": CorridorEnv, "policy": "policy", "episodes": 6, "every_n_steps": 8}
    cfg = {"evaluation": settings, "video_logger": False, "return_logger": False}
    callback = EvaluationCallback(cfg, tracker=MemoryTracker())
    with pytest.warns(UserWarning, match=r"return_iqm_low is monitored.*at least 4 episodes"):
        fit(ReturnsBecomeEqual(), saved, callback, max_epochs=3, enable_checkpointing=True)
    scores = {Path(path).name: float(score) for path, score in saved.best_k_models.items()}
    # Of 2, 2, 3, 4, 5, 6, all but the first and the last are averaged; the winsorized variance is 9.5 / 5.
    assert scores.pop("step=8.ckpt") == pytest.approx(3.5 - 3.182446 * math.sqrt(9.5 / 5 * 5 / 12))
    assert scores.keys() == {"step=16.ckpt", "step=24.ckpt"}
    assert max(scores.values()) < -1e30
    assert Path(saved.best_model_path).name == "step=8.ckpt"


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_plateau_scheduler_finds_a_number_in_a_development_run(fit: Any, interval: str) -> None:
    module = WithPlateau()
    module.interval = interval
    assert updates_of_evaluations(fit, module, fast_dev_run=True) == []


def test_plateau_scheduler_that_reads_every_second_epoch_has_a_number_of_that_epoch(fit: Any) -> None:
    class EverySecond(WithPlateau):
        def configure_optimizers(self) -> Any:
            configured = super().configure_optimizers()
            configured["lr_scheduler"]["frequency"] = 2
            return configured

    module = EverySecond()
    assert updates_of_evaluations(fit, module, max_epochs=5) == [16, 32, 40]
    assert [float(scheduler.best) for scheduler in [module.lr_schedulers()]] == [3.0]
