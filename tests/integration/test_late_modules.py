"""Modules that finish themselves in their hooks, and policies that log while they act."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from rlwandb_callbacks import ConfigError, PolicyError, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ


def actor_that_goes_right() -> nn.Module:
    actor = nn.Linear(2, 2)
    with torch.no_grad():
        actor.bias.copy_(torch.tensor([0.0, 9.0]))
    return actor


class FinishedAtFitStart(TinyQ):
    """Makes its actor and its environment in its own on_fit_start."""

    def on_fit_start(self) -> None:
        self.late_actor, self.env = actor_that_goes_right(), CorridorEnv()


class FinishedAtTrainStart(TinyValidatedQ):
    """Makes its actor and its environment in its own on_train_start, after the sanity check of its validation."""

    def on_train_start(self) -> None:
        self.late_actor, self.env = actor_that_goes_right(), CorridorEnv()


class FinishedWithItsData(TinyQ):
    """Makes its actor and its environment with the data loader."""

    def train_dataloader(self) -> Any:
        self.late_actor, self.env = actor_that_goes_right(), CorridorEnv()
        return super().train_dataloader()


class FinishedByCallback(pl.Callback):
    """Gives the module what it lacks."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.late_actor, pl_module.env = actor_that_goes_right(), CorridorEnv()


def evaluation(tracker: MemoryTracker, **settings: Any) -> WandbRLCallback:
    config = {"evaluation": {"episodes": 2, "env": "self.env", "policy": "late_actor"}, "video_logger": False}
    return WandbRLCallback(config | settings, tracker=tracker)


@pytest.mark.parametrize(
    ("module_class", "others"),
    [
        (FinishedAtFitStart, []),
        (FinishedAtTrainStart, []),
        (FinishedWithItsData, []),
        (TinyQ, [FinishedByCallback()]),
    ],
)
def test_module_that_is_finished_after_our_hooks_is_evaluated(fit: Any, module_class: Any, others: list[Any]) -> None:
    tracker = MemoryTracker()
    fit(module_class(), evaluation(tracker), *others)
    assert [row["eval/return_mean"] for row in tracker.rows if "eval/return_mean" in row] == [2.5]  # of 2 and 3


def test_module_that_on_validation_start_finishes_is_validated(fit: Any) -> None:
    class Module(TinyValidatedQ):
        def on_validation_start(self) -> None:
            self.late_actor, self.env = actor_that_goes_right(), CorridorEnv()

    tracker = MemoryTracker()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = pl.Trainer(callbacks=[evaluation(tracker)], enable_checkpointing=False, **quiet)
    trainer.validate(Module(), verbose=False)
    assert [row["eval/return_mean"] for row in tracker.rows if "eval/return_mean" in row] == [2.5]


def test_policy_that_the_hooks_replace_is_asked_again(fit: Any) -> None:
    class Module(TinyQ):
        def __init__(self) -> None:
            super().__init__(batches=1)
            self.env, self.late_actor = CorridorEnv(), actor_that_goes_right()

        def on_train_start(self) -> None:
            self.late_actor = nn.Linear(2, 5)  # for five actions, where the environment has two

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            pytest.fail("The first training step was reached.")

    with pytest.raises(PolicyError, match=r"Discrete\(2\)"):
        fit(Module(), evaluation(MemoryTracker()))


def test_wrong_policy_of_a_module_with_hooks_is_an_error_before_its_first_step(fit: Any) -> None:
    class Module(FinishedAtTrainStart):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            pytest.fail("The first training step was reached.")

    callback = WandbRLCallback(env=CorridorEnv, policy="late_acter", tracker=MemoryTracker())
    with pytest.raises(PolicyError, match="Did you mean 'late_actor'"):
        fit(Module(), callback)


def test_module_without_hooks_is_an_error_before_anything_starts(fit: Any) -> None:
    class Module(pl.LightningModule):
        def setup(self, stage: str) -> None:
            self.network = nn.Linear(2, 2)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.network.parameters(), lr=0.1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            pytest.fail("The first training step was reached.")

    def batches() -> Any:
        pytest.fail("The data were read.")
        yield

    trainer = pl.Trainer(
        callbacks=[WandbRLCallback(env=CorridorEnv, policy="netwrk", tracker=MemoryTracker())],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        max_epochs=1,
        accelerator="cpu",
    )
    with pytest.raises(PolicyError, match="Did you mean 'network'"):
        trainer.fit(Module(), batches())


def test_networks_for_plasticity_may_be_made_in_hooks_and_wrong_names_are_errors(fit: Any) -> None:
    class Module(FinishedAtFitStart):
        def on_train_start(self) -> None:
            self.late_network = nn.Sequential(self.q_network)

    tracker = MemoryTracker()
    settings = {"enabled": True, "every_n_steps": 2, "networks": ["late_network"]}
    fit(Module(), evaluation(tracker, plasticity=settings))
    assert any(key.startswith("plasticity/") for row in tracker.rows for key in row)
    wrong = {"enabled": True, "networks": ["late_acter"]}
    with pytest.raises(ConfigError, match="late_acter"):
        fit(FinishedAtFitStart(), evaluation(MemoryTracker(), plasticity=wrong))


@pytest.mark.parametrize("every_n_steps", [1, 100])  # in on_train_batch_end, and in on_validation_end only
@pytest.mark.parametrize("base", [TinyQ, TinyValidatedQ])
def test_policy_that_logs_trains_and_logs_as_without_evaluation(fit: Any, base: Any, every_n_steps: int) -> None:
    class Module(base):  # type: ignore[misc, valid-type]  # a class made at run time
        def act(self, observations: torch.Tensor) -> torch.Tensor:
            self.log("value", observations.sum(), on_step=True, on_epoch=True)
            self.log_dict({"acted": 1.0})
            return self.q_network(observations)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.act(batch[0])
            return super().training_step(batch, batch_idx)

    def logged(*callbacks: Any) -> dict[str, float]:
        torch.manual_seed(0)
        trainer = fit(Module(), *callbacks)
        return {key: float(value) for key, value in trainer.callback_metrics.items() if "/" not in key}

    config = {"evaluation": {"episodes": 2, "every_n_steps": every_n_steps}, "video_logger": False}
    tracker = MemoryTracker()
    observed = logged(WandbRLCallback(config, env=CorridorEnv, policy="act", tracker=tracker))
    assert observed == logged()
    assert observed.keys() >= {"value_step", "value_epoch", "acted"}
    assert any("eval/return_mean" in row for row in tracker.rows)
