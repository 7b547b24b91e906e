"""Evaluation callback: episodes, schedule, logged values and metrics available to the Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from caught_warnings import package_warnings
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from rlwandb_callbacks import Episode, EvaluationCallback, PolicyError, PolicyStep, QValues, WandbRLCallback
from rlwandb_callbacks.core.values import Histogram, Table
from rlwandb_callbacks.testing import (
    CorridorEnv,
    MemoryTracker,
    PointEnv,
    TinyActorCritic,
    TinyQ,
    TinyValidatedQ,
    read_offline_run,
)


class AlwaysRight(TinyValidatedQ):
    """Module whose policy always walks right: seed ``s`` has return ``2 + s % 5`` after as many steps."""

    def policy(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = len(observations)
        return {"q_values": torch.tensor([[0.0, 1.5]]).expand(batch, 2), "value": torch.full((batch,), 4.0)}


def run_evaluation(
    fit: Any, module: Any, *others: Any, options: dict[str, Any] | None = None, **trainer: Any
) -> MemoryTracker:
    tracker = MemoryTracker()
    settings = {"env": CorridorEnv, "policy": "policy", "episodes": 5, "gamma": 0.5, **(options or {})}
    fit(module, EvaluationCallback({"on_error": "raise", "evaluation": settings}, tracker=tracker), *others, **trainer)
    return tracker


def test_logged_statistics_equal_values_computed_by_hand(fit: Any) -> None:
    (row,) = run_evaluation(fit, AlwaysRight()).by_update()
    assert (row["eval/return_mean"], row["eval/return_min"], row["eval/return_max"]) == (4.0, 2.0, 6.0)
    assert (row["eval/return_median"], row["eval/return_p25"], row["eval/return_p75"]) == (4.0, 3.0, 5.0)
    assert row["eval/return_std"] == pytest.approx(np.std([2, 3, 4, 5, 6]))
    assert row["eval/return_discounted_mean"] == pytest.approx(np.mean([2 - 0.5 ** (n - 1) for n in (2, 3, 4, 5, 6)]))
    assert row["eval/return_iqm"] == pytest.approx(4.0)
    assert row["eval/return_iqm_low"] <= 4.0 <= row["eval/return_iqm_high"]
    assert (row["eval/length_mean"], row["eval/success_rate"], row["q/mean"]) == (4.0, 1.0, 1.5)
    assert row["policy/action_histogram"].counts.tolist() == [0, 20]


def test_episode_table_has_one_row_per_episode(fit: Any) -> None:
    table = run_evaluation(fit, AlwaysRight()).rows[0]["eval/episodes"]
    assert isinstance(table, Table)
    assert table.columns == ("episode", "seed", "return", "discounted_return", "length", "ended", "success")
    assert [row[1] for row in table.rows] == [0, 1, 2, 3, 4]
    assert [row[2] for row in table.rows] == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert {row[5] for row in table.rows} == {"terminated"}


def test_return_distribution_is_logged_as_histogram_and_figure(fit: Any) -> None:
    (row,) = run_evaluation(fit, AlwaysRight()).by_update()
    assert isinstance(row["eval/return_distribution"], Histogram)
    assert row["eval/return_distribution"].counts.sum() == 5
    assert len(np.unique(row["eval/return_figure"].pixels.reshape(-1, 3), axis=0)) > 50


def test_videos_show_best_median_and_worst_episode_and_captions_name_them(fit: Any) -> None:
    (row,) = run_evaluation(fit, AlwaysRight()).by_update()
    captions = {label: row[f"video/{label}"].caption for label in ("best", "median", "worst")}
    assert captions["best"] == "best of 5 · return 6.00 · length 6 · terminated · seed 4 · env step 80"
    assert captions["median"].startswith("median of 5 · return 4.00 · length 4")
    assert captions["worst"].startswith("worst of 5 · return 2.00 · length 2")
    assert all(Path(row[f"video/{label}"].path).is_file() for label in captions)


def test_entropy_and_action_histogram_of_continuous_policy_are_logged(fit: Any) -> None:
    tracker = run_evaluation(fit, TinyActorCritic(), options={"env": PointEnv, "deterministic": False})
    row = tracker.by_update()[-1]
    assert row["policy/entropy"] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 0.25), rel=1e-6)
    assert row["policy/action_histogram"].counts.sum() == 50
    assert "q/mean" not in row


def test_module_without_validation_loop_is_evaluated_on_schedule_and_at_the_end(fit: Any) -> None:
    options = {"every_n_steps": 3, "policy": "q_network"}
    tracker = run_evaluation(fit, TinyQ(batches=8), options=options)
    assert [row["time/updates"] for row in tracker.by_update()] == [3, 6, 8]
    assert [row["trainer/global_step"] for row in tracker.by_update()] == [2, 5, 7]


def test_end_of_fit_does_not_repeat_the_last_evaluation(fit: Any) -> None:
    tracker = run_evaluation(fit, TinyQ(batches=6), options={"every_n_steps": 3, "policy": "q_network"})
    assert [row["time/updates"] for row in tracker.by_update()] == [3, 6]


def test_module_with_validation_loop_is_evaluated_at_the_end_of_validation(fit: Any) -> None:
    tracker = run_evaluation(fit, AlwaysRight(batches=8), val_check_interval=4)
    assert [row["time/updates"] for row in tracker.by_update()] == [4, 8]
    assert [row["trainer/global_step"] for row in tracker.by_update()] == [3, 7]


def test_training_that_stops_before_first_validation_is_evaluated_at_the_end(fit: Any) -> None:
    tracker = run_evaluation(fit, AlwaysRight(batches=8), max_steps=5)
    assert [row["time/updates"] for row in tracker.by_update()] == [5]


def test_training_that_stops_after_validation_is_not_evaluated_again(fit: Any) -> None:
    tracker = run_evaluation(fit, AlwaysRight(batches=8), max_steps=5, val_check_interval=4)
    assert [row["time/updates"] for row in tracker.by_update()] == [4]


def test_model_checkpoint_can_monitor_the_return(fit: Any) -> None:
    class ImprovingPolicy(TinyValidatedQ):
        def policy(self, observations: torch.Tensor) -> torch.Tensor:
            right = 1.0 if self.trainer.global_step >= 4 else -1.0
            return torch.tensor([[0.0, right]]).expand(len(observations), 2)

    checkpoint = ModelCheckpoint("best", monitor="eval/return_mean", mode="max", filename="{step}", save_top_k=1)
    trainer = fit(
        ImprovingPolicy(batches=8),
        EvaluationCallback({"on_error": "raise"}, env=CorridorEnv, policy="policy", tracker=MemoryTracker()),
        checkpoint,
        val_check_interval=2,
        num_sanity_val_steps=0,
        enable_checkpointing=True,
    )
    assert float(checkpoint.best_model_score or 0) == pytest.approx(float(trainer.callback_metrics["eval/return_mean"]))
    assert [path.name for path in Path("best").iterdir()] == ["step=4.ckpt"]


def test_early_stopping_monitors_the_return_even_as_first_callback(fit: Any) -> None:
    stopping = EarlyStopping(monitor="eval/return_mean", mode="max", patience=2)
    group = WandbRLCallback({"on_error": "raise"}, env=CorridorEnv, policy="policy", tracker=MemoryTracker())
    module = AlwaysRight(batches=8)
    options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        callbacks=[stopping, group], val_check_interval=2, enable_checkpointing=False, max_epochs=1, **options
    )
    trainer.fit(module)
    assert trainer.global_step == 6


def test_episodes_returned_by_validation_step_are_used(fit: Any) -> None:
    class ReturnsEpisodes(TinyValidatedQ):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return {"episodes": [self.episode(float(reward)) for reward in (1, 5, 3)]}

        def episode(self, reward: float) -> Episode:
            frames = np.full((3, 40, 50, 3), int(reward) * 40, np.uint8)
            frames[:, :10] = 255
            scores = QValues(np.array([[1.0, 0.0], [0.0, 1.0]]))
            return Episode(
                actions=np.array([0, 1]), rewards=np.array([0.0, reward]), terminated=True, scores=scores, frames=frames
            )

    tracker = MemoryTracker()
    fit(ReturnsEpisodes(), EvaluationCallback({"on_error": "raise", "action_logger": True}, tracker=tracker))
    (row,) = tracker.by_update()
    assert (row["eval/return_mean"], row["eval/return_max"]) == (3.0, 5.0)
    assert row["video/best"].caption.startswith("best of 3 · return 5.00")


class ReturnsEpisode(AlwaysRight):
    """Module whose validation_step returns an episode."""

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        pixels = np.zeros((2, 40, 50, 3), np.uint8)
        return {"episodes": [Episode(actions=np.zeros(1), rewards=np.ones(1), terminated=True, frames=pixels)]}


def raise_error(episodes: Any) -> Any:
    raise RuntimeError("no idea")


@pytest.mark.parametrize("module", [AlwaysRight, ReturnsEpisode])
@pytest.mark.parametrize(
    "select",
    [lambda episodes: {"first": [0, 1]}, lambda episodes: [99], raise_error],
    ids=["list instead of index", "index out of range", "exception"],
)
def test_failing_video_selection_skips_videos_only(fit: Any, module: Any, select: Any) -> None:
    tracker = MemoryTracker()
    evaluation = {"env": CorridorEnv, "policy": "policy", "episodes": 2}
    with pytest.warns(UserWarning, match="Choosing episodes for videos failed"):
        fit(module(), EvaluationCallback({"evaluation": evaluation, "videos": {"select": select}}, tracker=tracker))
    numbers = next(row for row in tracker.rows if "eval/return_mean" in row)
    assert numbers["logging/errors"] == 1
    (row,) = tracker.by_update()
    assert "eval/return_distribution" in row
    assert not [key for key in row if key.startswith("video/")]
    strict = EvaluationCallback(
        {"on_error": "raise", "evaluation": evaluation, "videos": {"select": select}}, tracker=tracker
    )
    with pytest.raises((ValueError, RuntimeError)):
        fit(module(), strict)


def test_training_resumed_from_checkpoint_continues_the_axes(fit: Any) -> None:
    def callback(tracker: MemoryTracker) -> EvaluationCallback:
        settings = {"env": CorridorEnv, "policy": "q_network", "every_n_steps": 3, "episodes": 2}
        return EvaluationCallback({"on_error": "raise", "evaluation": settings}, tracker=tracker)

    tracker = MemoryTracker()
    fit(TinyQ(batches=4), callback(tracker)).save_checkpoint("first.ckpt")
    fit(TinyQ(batches=4), callback(tracker), max_epochs=2, ckpt_path="first.ckpt")
    assert [row["time/updates"] for row in tracker.by_update()] == [3, 4, 6, 8]


class RenderErrorEnv(CorridorEnv):
    """Environment whose render() raises an error."""

    def render(self) -> Any:
        raise RuntimeError("no display found")


def test_env_that_cannot_render_warns_once_and_statistics_are_logged(fit: Any) -> None:
    tracker = MemoryTracker()
    callback = EvaluationCallback(env=RenderErrorEnv, policy="q_network", tracker=tracker)
    with pytest.warns(UserWarning, match="no display found") as caught:
        fit(TinyValidatedQ(batches=4), callback, val_check_interval=2)
    (warning,) = package_warnings(caught)
    assert "xvfb-run" in warning
    assert len(tracker.column("eval/return_mean")) == 2
    assert not tracker.column("video/best")
    assert tracker.column("logging/errors") == [1]


class NonDeterministicEnv(CorridorEnv):
    """Environment whose episode length depends on the number of instances created before."""

    made = 0

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        type(self).made += 1
        self.number = type(self).made

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=self.number)


def test_non_deterministic_env_is_recorded_during_evaluation(fit: Any) -> None:
    tracker = MemoryTracker()
    callback = EvaluationCallback(env=NonDeterministicEnv, policy="policy", tracker=tracker)
    with pytest.warns(UserWarning, match="recorded while playing") as caught:
        fit(AlwaysRight(batches=4), callback, val_check_interval=2)
    assert len(package_warnings(caught)) == 1
    assert len(tracker.column("video/best")) == 2
    assert not tracker.column("logging/errors")


def test_a_return_of_minus_infinity_reaches_wandb_beside_the_statistics_that_it_does_not_change(fit: Any) -> None:
    class FallsForever(CorridorEnv):
        def step(self, action: Any) -> Any:
            observation, reward, *others = super().step(action)
            return observation, float("-inf") if self._length == 6 else reward, *others

    settings = {"env": FallsForever, "policy": "policy", "episodes": 5}
    fit(AlwaysRight(), WandbRLCallback({"evaluation": settings, "executor": "inline", "on_error": "raise"}))
    run = read_offline_run("wandb")
    (row,) = [row for row in run.history if "eval/return_mean" in row]
    # Returns 2, 3, 4, 5 and -inf: 2, 3 and 4 are averaged.
    assert [row[f"eval/return_{name}"] for name in ("mean", "std", "min")] == [-np.inf, np.inf, -np.inf]
    assert [row[f"eval/return_{name}"] for name in ("median", "p25", "p75", "iqm")] == [3.0, 2.0, 4.0, 3.0]
    margin = 4.302653 * np.sqrt(4 / 6)
    limits = [row["eval/return_iqm_low"], row["eval/return_iqm_high"]]
    assert limits == pytest.approx([3 - margin, 3 + margin])
    assert row["eval/success_rate_low"] == pytest.approx(5 / (5 + 1.959964**2))
    assert "-Infinity" in run.media("eval/episodes")[0].read_text()
    assert len(run.media("video/worst")) == 1
    assert run.media("eval/return_figure")


def test_env_error_does_not_stop_training(fit: Any) -> None:
    class CrashingEnv(CorridorEnv):
        def step(self, action: Any) -> Any:
            raise RuntimeError("simulator crashed")

    with pytest.warns(UserWarning, match="simulator crashed") as caught:
        trainer = fit(TinyValidatedQ(), WandbRLCallback(env=CrashingEnv, policy="q_network"))
    first, second = package_warnings(caught)
    assert "CrashingEnv failed at a first step, with the random action" in first
    assert "The evaluation failed, and training goes on: RuntimeError: simulator crashed" in second
    assert trainer.global_step == 8
    assert read_offline_run("wandb").column("logging/errors") == [1]


def test_on_error_raise_stops_training(fit: Any) -> None:
    class CrashingEnv(CorridorEnv):
        def step(self, action: Any) -> Any:
            raise RuntimeError("simulator crashed")

    with pytest.warns(UserWarning, match="failed at a first step"), pytest.raises(RuntimeError, match="crashed"):
        fit(TinyValidatedQ(), WandbRLCallback(env=CrashingEnv, policy="q_network", on_error="raise"))


def test_env_instance_is_recreated_and_not_stepped(fit: Any) -> None:
    env = gym.make("CartPole-v1")
    tracker = MemoryTracker()

    class CartPolePolicy(TinyValidatedQ):
        def policy(self, observations: torch.Tensor) -> torch.Tensor:
            return observations[:, 2:]

    fit(
        CartPolePolicy(),
        EvaluationCallback(env=env, policy="policy", tracker=tracker, on_error="raise", video_logger=False),
    )
    assert tracker.column("eval/return_mean")[0] > 0
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


def test_policy_is_called_once_per_step_for_all_envs(fit: Any) -> None:
    batch_sizes: list[int] = []

    class CountsCalls(AlwaysRight):
        def policy(self, observations: torch.Tensor) -> Any:
            batch_sizes.append(len(observations))
            return super().policy(observations)

    run_evaluation(fit, CountsCalls())
    assert batch_sizes[-6:] == [5] * 6
    assert set(batch_sizes[:-6]) == {3}, "in the dry run"


class CrashingEnv(CorridorEnv):
    """Environment that raises an error at its first step."""

    def step(self, action: Any) -> Any:
        raise RuntimeError("simulator crashed")


@pytest.mark.parametrize(
    "monitor",
    [
        lambda: EarlyStopping(monitor="eval/return_mean", mode="max"),
        lambda: ModelCheckpoint("best", monitor="eval/return_mean", mode="max"),
    ],
    ids=["EarlyStopping", "ModelCheckpoint"],
)
def test_failing_evaluation_does_not_stop_callbacks_that_monitor_it(fit: Any, monitor: Any) -> None:
    callback = EvaluationCallback(env=CrashingEnv, policy="q_network", tracker=MemoryTracker())
    with pytest.warns(UserWarning, match="simulator crashed"):
        trainer = fit(TinyValidatedQ(), callback, monitor(), enable_checkpointing=True, val_check_interval=4)
    assert trainer.global_step == 8


@pytest.mark.parametrize("returned", [5, None, torch.tensor(3.0), "three"])
def test_episodes_key_of_another_type_in_validation_step_is_ignored(fit: Any, returned: Any) -> None:
    class ReturnsOtherType(TinyValidatedQ):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return {"episodes": returned}

    tracker = MemoryTracker()
    trainer = fit(ReturnsOtherType(), EvaluationCallback({"on_error": "raise"}, tracker=tracker))
    assert trainer.global_step == 8
    assert tracker.rows == []


def test_statistics_are_logged_if_video_encoding_fails(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "no_such_ffmpeg")
    monkeypatch.setattr("moviepy.video.io.ffmpeg_writer.FFMPEG_BINARY", "no_such_ffmpeg")
    tracker = MemoryTracker()
    callback = EvaluationCallback(env=CorridorEnv, policy="q_network", tracker=tracker)
    with pytest.warns(UserWarning, match="Drawing the evaluation failed"):
        fit(TinyValidatedQ(), callback)
    assert len(tracker.column("eval/return_mean")) == 1
    assert not tracker.column("video/best")


def test_scores_that_do_not_match_the_actions_raise_before_the_first_step(fit: Any) -> None:
    class TooFewScores(TinyValidatedQ):
        def policy(self, observations: torch.Tensor) -> PolicyStep:
            batch = len(observations)
            return PolicyStep(np.ones(batch, np.int64), QValues(np.zeros((batch, 1))))

    with pytest.raises(PolicyError, match="a PolicyStep with 3 actions"):
        fit(TooFewScores(), EvaluationCallback(env=CorridorEnv, policy="policy", tracker=MemoryTracker()))


class MissionEnv(CorridorEnv):
    """Environment with a text in its observations, as in MiniGrid."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        position = self.observation_space
        self.observation_space = gym.spaces.Dict({"position": position, "mission": gym.spaces.Text(20)})

    def _observation(self) -> Any:
        return {"position": super()._observation(), "mission": "go right"}


def test_dict_observations_with_text_are_supported(fit: Any) -> None:
    class TextPolicy(TinyValidatedQ):
        def policy(self, observations: dict[str, Any]) -> torch.Tensor:
            assert set(observations["mission"]) == {"go right"}
            return torch.tensor([[0.0, 1.0]]).expand(len(observations["position"]), 2)

    tracker = MemoryTracker()
    fit(TextPolicy(), EvaluationCallback({"on_error": "raise"}, env=MissionEnv, policy="policy", tracker=tracker))
    assert tracker.column("eval/success_rate") == [1.0]
    assert tracker.column("video/best")


def test_training_continues_after_the_user_finishes_the_run(fit: Any) -> None:
    import wandb

    class FinishesRun(TinyValidatedQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 2:
                wandb.finish()
            return super().training_step(batch, batch_idx)

    wandb.init()
    with pytest.warns(UserWarning, match="is finished"):
        trainer = fit(FinishesRun(), WandbRLCallback(env=CorridorEnv, policy="q_network", metrics={"every_n_steps": 1}))
    assert trainer.global_step == 8


def test_policy_without_env_warns(fit: Any) -> None:
    with pytest.warns(UserWarning, match="no episodes are played"):
        fit(TinyValidatedQ(), EvaluationCallback(policy="q_network", tracker=MemoryTracker()))
