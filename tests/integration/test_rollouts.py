"""Rows of training episodes, read from the outputs of the module and from its environment."""

from __future__ import annotations

import weakref
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from gymnasium.wrappers import RecordEpisodeStatistics

from rlwandb_callbacks import RolloutsCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, read_offline_run

KEYS = ("rollout/return_mean", "rollout/length_mean", "rollout/success_rate", "rollout/episodes")


class Scripted(TinyQ):
    """Returns given outputs, batch by batch."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(batches=len(rows))
        self.rows = rows

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {**super().training_step(batch, batch_idx), **self.rows[batch_idx]}


def rows_of(fit: Any, module: Any, every: int = 2, **options: Any) -> list[tuple[Any, ...]]:
    tracker = MemoryTracker()
    fit(
        module, RolloutsCallback({"on_error": "raise", "metrics": {"every_n_steps": every}}, tracker=tracker), **options
    )
    return [(row["time/updates"], *(row.get(key) for key in KEYS)) for row in tracker.rows]


def test_a_row_has_the_means_of_episodes_that_ended_since_the_previous_row(fit: Any) -> None:
    script: list[dict[str, Any]] = [
        {"episode_return": 4.0, "episode_length": 2, "is_success": True},
        {"episode_return": torch.tensor(8.0), "episode_length": torch.tensor(4), "is_success": torch.tensor(False)},
        {},
        {"episode_return": None, "episode_length": None},
        {"episode_return": [1.0, float("nan"), 3.0], "episode_length": [5, 6, 7]},
    ]
    assert rows_of(fit, Scripted(script)) == [(2, 6.0, 3.0, 0.5, 2), (5, 2.0, 6.0, None, 2)]


def test_episode_statistics_of_gymnasium_may_be_returned(fit: Any) -> None:
    masked = {"r": np.array([0.0, 9.0]), "l": np.array([0, 3]), "t": np.array([0.0, 0.1])}
    script = [
        {"episode": masked, "_episode": np.array([False, True])},
        {"infos": [{}, {"episode": {"r": 1.0, "l": 1}}]},
    ]
    assert rows_of(fit, Scripted(script)) == [(2, 5.0, 2.0, None, 2)]


def test_rollout_rows_are_written_to_a_run_next_to_metrics(fit: Any) -> None:
    script = [{"episodic_return": float(i), "episodic_length": 3} for i in range(4)]
    fit(Scripted(script), WandbRLCallback({"on_error": "raise", "metrics": {"every_n_steps": 2}}))
    run = read_offline_run("wandb")
    assert run.column("rollout/return_mean") == [0.5, 2.5]
    assert [row["time/updates"] for row in run.history if "rollout/episodes" in row] == [2, 4]
    assert run.metrics["rollout/return_mean"].step_metric == "trainer/global_step"


class Plays(TinyQ):
    """Goes right in its environment, ten steps per batch."""

    def __init__(self, env: Any, batches: int = 4) -> None:
        super().__init__(batches)
        self.env = env
        self.env.reset(seed=0)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        for _ in range(10):
            if any(self.env.step(1)[2:4]):
                self.env.reset()
        return super().training_step(batch, batch_idx)


def test_the_environment_is_read_if_the_outputs_describe_no_episodes(fit: Any) -> None:
    module = Plays(RecordEpisodeStatistics(CorridorEnv()))
    module.env.step(1)
    module.env.step(1)  # an episode before training
    module.env.reset(seed=0)
    assert rows_of(fit, module) == [(2, 2.0, 2.0, None, 10), (4, 2.0, 2.0, None, 10)]


def test_the_environment_is_not_read_if_the_outputs_describe_episodes(fit: Any) -> None:
    class ReturnsNone(Plays):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {**super().training_step(batch, batch_idx), "episode_return": None}

    assert rows_of(fit, ReturnsNone(RecordEpisodeStatistics(CorridorEnv()))) == []


def test_a_vector_environment_is_read(fit: Any) -> None:
    class PlaysVector(TinyQ):
        def on_train_start(self) -> None:
            self.envs = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync", wrappers=[RecordEpisodeStatistics])
            self.envs.reset(seed=0)
            self.returns: list[float] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            for _ in range(30):
                *_, infos = self.envs.step(self.envs.action_space.sample() * 0)
                if "episode" in infos:
                    self.returns += infos["episode"]["r"][infos["_episode"]].tolist()
            return super().training_step(batch, batch_idx)

    module = PlaysVector(batches=4)
    rows = rows_of(fit, module, every=4)
    module.envs.close()
    assert len(module.returns) > 20
    assert rows == [(4, pytest.approx(np.mean(module.returns)), rows[0][1], None, len(module.returns))]


def test_validation_does_not_log_earlier_episodes(fit: Any) -> None:
    class Validates(Plays):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

    module, tracker = Validates(RecordEpisodeStatistics(CorridorEnv())), MemoryTracker()
    module.training_step(next(iter(module.train_dataloader())), 0)
    assert module.env.episode_count == 5
    trainer = fit(module, RolloutsCallback(tracker=tracker), max_steps=0)
    trainer.validate(module, module.train_dataloader(), verbose=False)
    assert tracker.rows == []


def test_without_episodes_there_are_no_rows_and_errors_of_an_environment_do_not_end_training(fit: Any) -> None:
    class Odd:
        @property
        def return_queue(self) -> Any:
            raise RuntimeError("not yet")

    assert rows_of(fit, TinyQ()) == []
    module: Any = TinyQ()
    module.env = Odd()
    with pytest.warns(UserWarning, match="training environment failed.*not yet|training episodes failed.*not yet"):
        fit(module, RolloutsCallback({"metrics": {"every_n_steps": 2}}, tracker=MemoryTracker()))


def test_episodes_that_ended_before_an_exception_are_written(fit: Any) -> None:
    script: list[Any] = [{"episode_return": 5.0}, {}, None]
    tracker = MemoryTracker()
    with pytest.raises(TypeError):
        fit(Scripted(script), RolloutsCallback({"metrics": {"every_n_steps": 50}}, tracker=tracker))
    assert tracker.column("rollout/return_mean") == [5.0]


@pytest.mark.parametrize("name", ["infos", "final_info", "td_error"])
def test_outputs_of_batches_without_an_ended_episode_are_released(fit: Any, name: str) -> None:
    class ReturnsImages(TinyQ):
        def __init__(self) -> None:
            super().__init__(batches=4)
            self.images: list[weakref.ref[torch.Tensor]] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.alive = [image() for image in self.images[:-1] if image() is not None]
            image = torch.zeros(4)
            self.images.append(weakref.ref(image))
            return {**super().training_step(batch, batch_idx), name: [{"image": image}]}

    module = ReturnsImages()
    assert rows_of(fit, module, every=50) == []
    assert (len(module.images), module.alive) == (4, [])


class HoldsEnv(pl.LightningDataModule):
    """Has the environment in which the module plays."""

    def __init__(self) -> None:
        super().__init__()
        self.env = RecordEpisodeStatistics(CorridorEnv())
        self.env.reset(seed=0)

    def train_dataloader(self) -> Any:
        return TinyQ(batches=4).train_dataloader()


def test_the_environment_of_a_datamodule_is_read() -> None:
    class PlaysThere(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            for _ in range(10):
                if any(self.trainer.datamodule.env.step(1)[2:4]):
                    self.trainer.datamodule.env.reset()
            return super().training_step(batch, batch_idx)

    tracker = MemoryTracker()
    callback = RolloutsCallback({"on_error": "raise", "metrics": {"every_n_steps": 2}}, tracker=tracker)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    pl.Trainer(callbacks=[callback], max_epochs=1, logger=False, accelerator="cpu", **quiet).fit(
        PlaysThere(), datamodule=HoldsEnv()
    )
    rows = [tuple(row.get(key) for key in ("time/updates", *KEYS)) for row in tracker.rows]
    assert rows == [(2, 2.0, 2.0, None, 10), (4, 2.0, 2.0, None, 10)]
