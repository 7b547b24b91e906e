"""What counts as an update: batches in which weights were trained."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, GradientAccumulationScheduler, StochasticWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import MemoryTracker, TinyActorCritic


class Counted(pl.LightningModule):
    """Returns None in given batches; its loss is 2, plus a weight with gradient 1."""

    def __init__(self, without_loss: set[int] = frozenset(), batches: int = 8) -> None:  # type: ignore[assignment]
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.without_loss, self.batches, self.moves = without_loss, batches, 0
        self.seen = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen += 1
        self.before = self.weight.item()
        return None if self.seen - 1 in self.without_loss else {"loss": 2 + self.weight.sum() * 1e-3}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.moves += self.weight.item() != self.before

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.weight], lr=1e-3)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(self.batches, 1)))


def rows_of(fit: Any, module: Any, *callbacks: Any, config: dict[str, Any] | None = None, **trainer: Any) -> Any:
    tracker = MemoryTracker()
    settings = {"metrics": {"every_n_steps": 1}, "on_error": "raise", **(config or {})}
    fit(module, WandbRLCallback(settings, tracker=tracker), *callbacks, **trainer)
    return tracker


@pytest.mark.parametrize(
    ("without_loss", "accumulate", "updates"),
    [
        (set(), 1, 8),
        (set(range(6)), 1, 2),
        ({1, 4, 5}, 1, 5),
        ({1, 2, 3}, 2, 3),  # batch 0 is stepped in batch 1; the step in batch 3 has no gradient
        (set(range(8)), 1, 0),
    ],
)
@pytest.mark.filterwarnings("ignore:.training_step. returned .None.")
def test_batches_without_loss_are_no_updates(fit: Any, without_loss: set[int], accumulate: int, updates: int) -> None:
    module = Counted(without_loss)
    counted = rows_of(fit, module, accumulate_grad_batches=accumulate).column("time/updates")
    assert counted == list(range(1, updates + 1))
    assert module.moves == updates


@pytest.mark.filterwarnings("ignore:.training_step. returned .None.")
def test_a_second_fit_of_a_trainer_counts_on(fit: Any) -> None:
    tracker = MemoryTracker()
    module = Counted(without_loss={0, 1, 4, 5, 6, 9}, batches=5)
    trainer = fit(module, WandbRLCallback({"metrics": {"every_n_steps": 1}, "on_error": "raise"}, tracker=tracker))
    for epochs in (2, 3):
        trainer.fit_loop.max_epochs = epochs
        trainer.fit(module)
    assert tracker.column("time/updates") == list(range(1, 10))
    assert module.moves == 9


def test_manual_optimization_without_a_step_says_so(fit: Any) -> None:
    class NeverSteps(TinyActorCritic):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"td_error": 1.0}

    with pytest.warns(UserWarning, match="no optimizer of configure_optimizers stepped in 8 batches"):
        assert rows_of(fit, NeverSteps()).rows == []


def test_an_update_that_the_module_delays_counts_where_it_happens(fit: Any) -> None:
    class StepsEveryFourth(Counted):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:  # type: ignore[override]
            closure() if (batch_idx + 1) % 4 else optimizer.step(closure=closure)

    module = StepsEveryFourth()
    assert rows_of(fit, module).column("time/updates") == [1, 2]
    assert module.moves == 2


@pytest.mark.parametrize("uses_wrappers", [True, False])
def test_manual_optimization_counts_batches_with_a_step(fit: Any, uses_wrappers: bool) -> None:
    class WarmsUp(TinyActorCritic):
        def optimizers(self, use_pl_optimizer: bool = True) -> Any:
            return super().optimizers(use_pl_optimizer=uses_wrappers)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"epsilon": 1.0} if batch_idx < 5 else super().training_step(batch, batch_idx)

    assert rows_of(fit, WarmsUp()).column("time/updates") == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:.*this fit will run with no optimizer")
def test_manual_optimization_without_optimizers_counts_all_batches(fit: Any) -> None:
    class Tabular(TinyActorCritic):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"td_error": 1.0}

        def configure_optimizers(self) -> Any:
            return None

    assert rows_of(fit, Tabular()).column("time/updates") == list(range(1, 9))


class WithBatchNorm(Counted):
    """Counts environment steps, and ends an episode in each batch; 4 batches an epoch."""

    def __init__(self) -> None:
        super().__init__(batches=4)
        self.norm = nn.BatchNorm1d(1, affine=False)
        self.env = gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1", max_episode_steps=1))
        self.env_steps = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.norm(torch.zeros(2, 1))
        self.env.reset(seed=0)
        self.env.step(0)
        self.env_steps += 1
        self.log("td_error", float(self.env_steps), on_step=True, on_epoch=True)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("every_n_steps", [1, 5])
def test_epoch_that_only_estimates_batch_norms_is_no_training(fit: Any, every_n_steps: int) -> None:
    module = WithBatchNorm()
    tracker = rows_of(
        fit,
        module,
        StochasticWeightAveraging(0.01, swa_epoch_start=1),
        config={"metrics": {"every_n_steps": every_n_steps}, "gradient_logger": True, "gradients": {"log_freq": 1}},
        max_epochs=3,
    )
    assert module.env_steps == 16, "Lightning runs a fourth epoch"
    assert max(tracker.column("time/updates")) == 12
    assert tracker.column("train/loss") == pytest.approx([2.0] * len(tracker.column("train/loss")), rel=1e-3)
    last = [row for row in tracker.rows if "train/loss" in row][-1]
    assert (last["time/updates"], last["trainer/global_step"], last["train/td_error"]) == (12, 11, 12.0)
    assert len(tracker.column("train/td_error_epoch")) == 3
    assert sum(tracker.column("rollout/episodes")) == 12
    assert max(row["time/env_steps"] for row in tracker.rows) == 12


def test_divisor_of_the_loss_is_that_of_its_batch(fit: Any) -> None:
    tracker = rows_of(fit, Counted(), GradientAccumulationScheduler({0: 4, 1: 2, 2: 1}), max_epochs=3)
    assert tracker.column("train/loss") == pytest.approx([2.0] * (2 + 4 + 8), rel=1e-3)


def test_divisor_may_change_before_the_row_is_written(fit: Any) -> None:
    class Doubles(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.accumulate_grad_batches = 2

    tracker = MemoryTracker()
    ours = WandbRLCallback({"metrics": {"every_n_steps": 1}, "on_error": "raise"}, tracker=tracker)
    fit(Counted(), Doubles(), ours)
    assert tracker.column("train/loss") == pytest.approx([2.0] * len(tracker.column("train/loss")), rel=1e-3)
