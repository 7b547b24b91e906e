"""Rows of training metrics: values, names and axes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import wandb
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.loggers import WandbLogger

from rlwandb_callbacks import EvaluationCallback, MetricsCallback, WandbRLCallback
from rlwandb_callbacks.testing import (
    CorridorEnv,
    MemoryTracker,
    TinyActorCritic,
    TinyQ,
    TinyValidatedQ,
    read_offline_run,
)


class Scripted(TinyQ):
    """Returns given outputs, batch by batch."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(batches=len(rows))
        self.rows = rows

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.q_network(batch[0]).mean() * 0 + batch_idx, **self.rows[batch_idx]}


def rows_of(fit: Any, module: Any, config: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    tracker = MemoryTracker()
    fit(
        module,
        MetricsCallback({"on_error": "raise", "metrics": {"every_n_steps": 1}, **(config or {})}, tracker=tracker),
        **options,
    )
    return tracker.rows


def test_tensors_are_averaged_and_q_values_have_a_range(fit: Any) -> None:
    q_values = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    (row,) = rows_of(fit, Scripted([{"q_values": q_values, "td_error": torch.tensor([1.0, -3.0]), "entropy": 0.5}]))
    assert (row["train/q_value"], row["train/q_value_min"], row["train/q_value_max"]) == (3.0, 1.0, 6.0)
    assert row["train/td_error"] == -1.0
    assert row["train/entropy"] == 0.5
    assert "train/td_error_min" not in row


@pytest.mark.parametrize("alias", ["q_value", "q_values", "qf1_values", "Q1"])
def test_aliases_of_the_q_value(fit: Any, alias: str) -> None:
    (row,) = rows_of(fit, Scripted([{alias: 2.0}]))
    assert row["train/q_value"] == 2.0


@pytest.mark.parametrize("alias", ["target_q_value", "target q_value", "target_q"])
def test_aliases_of_the_target_q_value(fit: Any, alias: str) -> None:
    (row,) = rows_of(fit, Scripted([{alias: 2.0}]))
    assert row["train/target_q_value"] == 2.0


def test_a_row_has_the_latest_value_of_each_metric_since_the_previous_row(fit: Any) -> None:
    script = [{"td_error": 1.0}, {"td_error": 2.0, "entropy": 7.0}, {"td_error": 3.0}, {}]
    rows = rows_of(fit, Scripted(script), {"metrics": {"every_n_steps": 3}})
    assert [row["train/loss"] for row in rows] == [2.0, 3.0]
    assert (rows[0]["train/td_error"], rows[0]["train/entropy"]) == (3.0, 7.0)
    assert "train/td_error" not in rows[1]


def test_metric_list_selects_known_and_adds_unknown_metrics(fit: Any) -> None:
    script = [{"q_values": 1.0, "reward_scale": torch.tensor(4.0), "entropy": 2.0}]
    (row,) = rows_of(fit, Scripted(script), {"metric_list": ["qf1_values", "reward_scale"]})
    assert {key for key in row if key.startswith("train/")} == {"train/q_value", "train/reward_scale"}


def test_a_warning_names_metrics_that_were_never_found(fit: Any) -> None:
    with pytest.warns(UserWarning, match="metric_list names reward_scael"):
        rows_of(fit, Scripted([{}]), {"metric_list": ["loss", "reward_scael"]})


def test_values_that_the_module_logs_are_found(fit: Any) -> None:
    class Logs(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("losses/entropy", 0.25)
            self.log("val/td_error", 9.0)
            return self.q_network(batch[0]).mean()

    rows = rows_of(fit, Logs(batches=1))
    assert rows[0]["train/entropy"] == 0.25
    assert "train/td_error" not in rows[0]


def test_grad_norm_is_that_of_the_accumulated_unclipped_gradient(fit: Any) -> None:
    class Linear(TinyQ):
        def __init__(self) -> None:
            super().__init__(batches=2)
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": (self.weight * torch.tensor([3.0, 4.0])).sum()}

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD([self.weight], lr=0.1)

    rows = rows_of(fit, Linear(), accumulate_grad_batches=2, gradient_clip_val=0.1)
    assert [row["train/grad_norm"] for row in rows] == [pytest.approx(5.0)]


def test_learning_rates_of_all_optimizers_and_groups_with_and_without_scheduler(fit: Any) -> None:
    class Groups(TinyActorCritic):
        def configure_optimizers(self) -> Any:
            groups = [{"params": self.actor.weight, "lr": 0.1}, {"params": self.actor.bias, "lr": 0.2}]
            actor = torch.optim.SGD(groups)
            critic = torch.optim.Adam(self.critic.parameters(), lr=0.01)
            return [actor, critic], [torch.optim.lr_scheduler.StepLR(critic, 1, gamma=0.5)]

        def on_train_batch_end(self, *_: Any) -> None:
            self.lr_schedulers().step()

    rows = rows_of(fit, Groups(batches=2))
    assert [row["train/lr"] for row in rows] == [0.1, 0.1]
    assert [row["train/lr_actor_pg1"] for row in rows] == [0.2, 0.2]
    assert [row["train/lr_critic"] for row in rows] == [0.01, 0.005]


def test_axes_under_manual_optimization_with_two_optimizers(fit: Any) -> None:
    rows = rows_of(fit, TinyActorCritic(batches=8), {"metrics": {"every_n_steps": 3}})
    assert [row["time/updates"] for row in rows] == [3, 6, 8]
    assert [row["trainer/global_step"] for row in rows] == [2, 5, 7]
    assert {"train/actor_loss", "train/critic_loss", "train/entropy", "train/grad_norm"} <= rows[0].keys()


def test_updates_do_not_count_batches_that_only_accumulate(fit: Any) -> None:
    rows = rows_of(fit, TinyQ(batches=8), accumulate_grad_batches=4)
    assert [row["time/updates"] for row in rows] == [1, 2]
    assert [row["trainer/global_step"] for row in rows] == [0, 1]


@pytest.mark.parametrize("name", ["env_steps", "env_step", "total_env_steps"])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_env_steps_are_read_from_the_outputs(fit: Any, name: str, as_tensor: bool) -> None:
    script = [{name: torch.tensor(64) if as_tensor else 64}]
    (row,) = rows_of(fit, Scripted(script))
    assert row["time/env_steps"] == 64


def test_env_steps_are_read_from_the_module_or_left_out(fit: Any) -> None:
    assert [row["time/env_steps"] for row in rows_of(fit, TinyQ(batches=2))] == [10, 20]

    class Silent(TinyActorCritic):
        pass

    assert "time/env_steps" not in rows_of(fit, Silent(batches=1))[0]


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("returned", [None, "tensor"])
def test_training_steps_that_return_a_tensor_or_nothing(fit: Any, returned: Any) -> None:
    class Bare(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if returned is None else self.q_network(batch[0]).mean()

    rows = rows_of(fit, Bare(batches=2))
    assert [row["train/lr"] for row in rows] == ([] if returned is None else [0.01, 0.01])


def test_values_without_numbers_are_left_out(fit: Any) -> None:
    (row,) = rows_of(fit, Scripted([{"td_error": "high", "entropy": torch.empty(0), "q_value": [1.0, 3.0]}]))
    assert "train/td_error" not in row
    assert "train/entropy" not in row
    assert row["train/q_value"] == 2.0


def test_nan_is_logged(fit: Any) -> None:
    (row,) = rows_of(fit, Scripted([{"td_error": torch.tensor(float("nan"))}]))
    assert row["train/td_error"] != row["train/td_error"]


def test_rows_continue_after_a_checkpoint(fit: Any) -> None:
    tracker = MemoryTracker()
    module = TinyQ(batches=4)

    def callback() -> MetricsCallback:
        return MetricsCallback({"metrics": {"every_n_steps": 2}, "on_error": "raise"}, tracker=tracker)

    trainer = fit(module, callback())
    trainer.save_checkpoint("first.ckpt")
    fit(TinyQ(batches=4), callback(), max_epochs=2, ckpt_path="first.ckpt")
    assert [row["time/updates"] for row in tracker.rows] == [2, 4, 6, 8]
    assert [row["trainer/global_step"] for row in tracker.rows] == [1, 3, 5, 7]


def test_updates_continue_from_a_checkpoint_without_this_callback(fit: Any) -> None:
    trainer = fit(TinyQ(batches=4))
    trainer.save_checkpoint("bare.ckpt")
    tracker = MemoryTracker()
    callback = MetricsCallback({"metrics": {"every_n_steps": 1}}, tracker=tracker)
    fit(TinyQ(batches=4), callback, max_epochs=2, ckpt_path="bare.ckpt")
    assert tracker.rows[0]["time/updates"] == 5


@pytest.mark.parametrize("is_group", [True, False], ids=["as one", "as parts"])
def test_evaluation_metrics_are_not_training_metrics(fit: Any, is_group: bool) -> None:
    class Explores(TinyValidatedQ):
        def policy(self, observations: torch.Tensor) -> torch.distributions.Categorical:
            return torch.distributions.Categorical(logits=torch.zeros(len(observations), 2))

    tracker = MemoryTracker()
    settings = {"on_error": "raise", "metrics": {"every_n_steps": 1}, "video_logger": False}
    kinds = [WandbRLCallback] if is_group else [MetricsCallback, EvaluationCallback]
    fit(
        Explores(), *(kind(settings, env=CorridorEnv, policy="policy", tracker=tracker) for kind in kinds), max_epochs=2
    )
    assert tracker.column("policy/entropy")
    assert not tracker.column("train/entropy")


def test_the_last_row_has_values_that_only_the_module_logs(fit: Any) -> None:
    class Logs(TinyActorCritic):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("entropy", 0.5)
            super().training_step(batch, batch_idx)

    rows = rows_of(fit, Logs(batches=5), {"metrics": {"every_n_steps": 50}})
    assert [(row["time/updates"], row["train/entropy"]) for row in rows] == [(5, 0.5)]


def test_grad_norm_is_that_of_one_step_if_a_batch_has_several(fit: Any) -> None:
    class ManySteps(TinyQ):
        def __init__(self) -> None:
            super().__init__(batches=1)
            self.automatic_optimization = False
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer: Any = self.optimizers()
            for _ in range(16):
                optimizer.zero_grad()
                self.manual_backward((self.weight * torch.tensor([3.0, 4.0])).sum())
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD([self.weight], lr=0.1)

    assert rows_of(fit, ManySteps())[0]["train/grad_norm"] == pytest.approx(5.0)


def test_a_step_that_is_logged_per_epoch_is_not_the_axis_of_batches(fit: Any) -> None:
    class EpochStep(TinyQ):
        def on_train_epoch_end(self) -> None:
            self.log("step", float(self.current_epoch))

    rows = rows_of(fit, EpochStep(batches=2), max_epochs=3)
    assert [row["trainer/global_step"] for row in rows] == [0, 1, 2, 3, 4, 5]


def test_a_key_that_the_module_logs_per_epoch_is_also_in_rows_of_batches(fit: Any) -> None:
    class EpochLoss(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            outputs = super().training_step(batch, batch_idx)
            self.log("train/loss", outputs["loss"], on_step=False, on_epoch=True)
            self.log("train/td_error", 1.0)
            return outputs

    settings = {"on_error": "raise", "metrics": {"every_n_steps": 1}}
    fit(EpochLoss(batches=3), MetricsCallback(settings), max_epochs=2, logger=WandbLogger(), log_every_n_steps=1)
    wandb.finish()
    history = read_offline_run("wandb").history
    ours = [row for row in history if "train/lr" in row]
    assert len(ours) == 6
    assert all("train/loss" in row and "train/td_error" not in row for row in ours)


class ConstantLoss(TinyQ):
    """Returns a loss of 2, and the same number under other names."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.q_network(batch[0]).mean() * 0 + 2.0
        self.log("alpha", loss)
        self.log("epsilon", loss, on_step=False, on_epoch=True)
        return {"loss": loss, "critic_loss": loss.detach(), "td_error": loss.detach()}


@pytest.mark.parametrize("accumulated", [1, 3, 4, 16])
def test_losses_are_those_of_a_batch_however_many_are_accumulated(fit: Any, accumulated: int) -> None:
    tracker = MemoryTracker()
    callback = MetricsCallback({"on_error": "raise", "metrics": {"every_n_steps": 1}}, tracker=tracker)
    fit(ConstantLoss(batches=10), callback, accumulate_grad_batches=accumulated)
    assert len(tracker.column("train/loss")) == -(-10 // accumulated)
    for name in ("loss", "critic_loss", "td_error", "alpha", "epsilon"):
        assert tracker.column(f"train/{name}") == pytest.approx([2.0] * len(tracker.column(f"train/{name}"))), name
    assert tracker.column("train/epsilon") == [2.0]


def test_a_scheduled_number_of_accumulated_batches_is_that_of_each_epoch(fit: Any) -> None:
    tracker = MemoryTracker()
    callback = MetricsCallback({"on_error": "raise", "metrics": {"every_n_steps": 1}}, tracker=tracker)
    fit(ConstantLoss(batches=4), callback, GradientAccumulationScheduler({0: 1, 1: 2, 2: 4}), max_epochs=3)
    assert tracker.column("train/loss") == [2.0] * (4 + 2 + 1)


def test_a_bare_loss_is_that_of_a_batch_too(fit: Any) -> None:
    class Bare(ConstantLoss):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx)["loss"]

    rows = rows_of(fit, Bare(batches=4), accumulate_grad_batches=4)
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [2.0]


def test_a_loss_under_manual_optimization_is_what_the_module_returns(fit: Any) -> None:
    class Manual(TinyActorCritic):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            super().training_step(batch, batch_idx)
            return {"loss": torch.tensor(0.5)}

    assert [row["train/loss"] for row in rows_of(fit, Manual(batches=2))] == [0.5, 0.5]


def test_losses_of_groups_are_apart_and_no_group_is_taken_for_a_value(fit: Any) -> None:
    script = {
        "actor/loss": 1.0,
        "critic/loss": 2.0,
        "loss/entropy": 3.0,
        "SAC/grad_norm/q": 4.0,
        "world_model/loss": 5.0,
    }
    (row,) = rows_of(fit, Scripted([script]))
    expected = {"actor_loss": 1.0, "critic_loss": 2.0, "entropy_loss": 3.0, "q_grad_norm": 4.0, "world_model_loss": 5.0}
    assert {name: row[f"train/{name}"] for name in expected} == expected
    assert row["train/loss"] == 0.0
    assert not {"train/entropy", "train/q_value", "train/value"} & row.keys()
