"""``train/lr`` is the rate with which an optimizer stepped: that of planted SGD updates of a weight with gradient 1."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from rlwandb_callbacks import MetricsCallback, WandbRLCallback
from rlwandb_callbacks.callbacks.optimizer_steps import OptimizerSteps
from rlwandb_callbacks.testing import MemoryTracker


class Planted(pl.LightningModule):
    """Weights with gradient 1, so that SGD moves each by its learning rate."""

    def __init__(self, optimizers: Callable[[Any], Any], batches: int = 4) -> None:
        super().__init__()
        self.actor, self.critic = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.make_optimizers, self.batches = optimizers, batches
        self.moves: list[float] = []  # of the actor

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.before = self.actor.item()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.actor.sum() + 0 * self.critic.sum()}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.moves.append(self.before - self.actor.item())

    def configure_optimizers(self) -> Any:
        return self.make_optimizers(self)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(self.batches, 1)))


def sgd(module: Planted, lr: Any = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([module.actor], lr=lr)


def halved(interval: str, lr: Any = 1.0) -> Callable[[Planted], Any]:
    def make(module: Planted) -> Any:
        optimizer = sgd(module, lr)
        return [optimizer], [{"scheduler": StepLR(optimizer, 1, gamma=0.5), "interval": interval}]

    return make


def rates_of(fit: Any, module: Planted, *callbacks: Any, key: str = "lr", **trainer: Any) -> list[float]:
    tracker = MemoryTracker()
    ours = MetricsCallback({"metrics": {"every_n_steps": 1}, "on_error": "raise"}, tracker=tracker)
    fit(module, ours, *callbacks, **trainer)
    return tracker.column(f"train/{key}")


def used(module: Planted) -> Any:
    return pytest.approx([move for move in module.moves if move != 0], rel=1e-4)


@pytest.mark.parametrize("lr", [1.0, torch.tensor(1.0)], ids=["number", "tensor"])
def test_rate_is_that_of_the_update_under_a_scheduler_of_steps(fit: Any, lr: Any) -> None:
    module = Planted(halved("step", lr))
    rates = rates_of(fit, module)
    assert rates == [1.0, 0.5, 0.25, 0.125]
    assert rates == used(module)


def test_rate_is_that_of_learning_rate_monitor(fit: Any, tmp_path: Any) -> None:
    class Kept(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            logged.extend(float(metrics[key]) for key in metrics if key.startswith("lr-"))

    logged: list[float] = []
    rates = rates_of(fit, Planted(halved("step")), LearningRateMonitor(), logger=Kept(tmp_path), log_every_n_steps=1)
    assert rates == logged == [1.0, 0.5, 0.25, 0.125]


def test_last_batch_of_an_epoch_has_the_rate_of_that_epoch(fit: Any) -> None:
    module = Planted(halved("epoch"), batches=2)
    rates = rates_of(fit, module, max_epochs=2)
    assert rates == [1.0, 1.0, 0.5, 0.5]
    assert rates == used(module)


def test_rate_of_accumulated_gradients_is_that_of_their_step(fit: Any) -> None:
    module = Planted(halved("step"))
    rates = rates_of(fit, module, accumulate_grad_batches=2)
    assert rates == [1.0, 0.5]
    assert rates == used(module)


class WarmsUpBefore(Planted):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:  # type: ignore[override]
        optimizer.param_groups[0]["lr"] = (batch_idx + 1) / 10
        optimizer.step(closure=closure)


class WarmsUpAfter(Planted):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:  # type: ignore[override]
        optimizer.step(closure=closure)
        optimizer.param_groups[0]["lr"] = (batch_idx + 1) / 10


class SetsInTrainingStep(Planted):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.optimizers().param_groups[0]["lr"] = (batch_idx + 1) / 10  # type: ignore[union-attr]  # one optimizer
        return super().training_step(batch, batch_idx)


class SetsBeforeStep(Planted):
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        optimizer.param_groups[0]["lr"] = (self.global_step + 1) / 10


@pytest.mark.parametrize("kind", [WarmsUpBefore, WarmsUpAfter, SetsInTrainingStep, SetsBeforeStep])
def test_rate_that_the_module_sets_is_read_at_the_step(fit: Any, kind: type[Planted]) -> None:
    module = kind(sgd)
    rates = rates_of(fit, module)
    assert rates[-2:] == pytest.approx([0.2, 0.3] if kind is WarmsUpAfter else [0.3, 0.4])
    assert rates == used(module)


def test_rate_of_an_optimizer_that_calls_its_closure_several_times(fit: Any) -> None:
    assert rates_of(fit, Planted(lambda module: torch.optim.LBFGS([module.actor], lr=0.5, max_iter=3))) == [0.5] * 4


class ActsEverySecondBatch(Planted):
    """Steps the critic twice a batch, and the actor in batches 1 and 3, with a scheduler step after each."""

    uses_wrappers = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizers: Any = self.optimizers(use_pl_optimizer=self.uses_wrappers)
        schedulers: Any = self.lr_schedulers()
        for part in (1, 1, 0)[: 3 if batch_idx % 2 else 2]:
            optimizers[part].zero_grad()
            (self.actor, self.critic)[part].sum().backward()
            optimizers[part].step()
            schedulers[part].step()


def actor_and_critic(module: Planted) -> Any:
    actor, critic = sgd(module), torch.optim.SGD([module.critic], lr=8.0)
    return [actor, critic], [StepLR(actor, 1, gamma=0.5), StepLR(critic, 1, gamma=0.5)]


@pytest.mark.parametrize("uses_wrappers", [True, False])
def test_manual_optimization_has_the_rate_of_the_latest_step_of_each_optimizer(fit: Any, uses_wrappers: bool) -> None:
    rates = {}
    for key in ("lr_actor", "lr_critic"):
        module = ActsEverySecondBatch(actor_and_critic)
        module.uses_wrappers = uses_wrappers
        rates[key] = rates_of(fit, module, key=key)
    assert rates["lr_actor"] == [1.0, 1.0, 1.0, 0.5], "present, used, still the used one, used"
    assert rates["lr_critic"] == [4.0, 1.0, 0.25, 0.0625]
    assert module.moves == [0.0, 1.0, 0.0, 0.5]


def test_groups_that_are_added_in_training_have_their_rates(fit: Any) -> None:
    class Adds(Planted):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                self.optimizers().add_param_group({"params": [self.critic], "lr": 0.25})  # type: ignore[union-attr]  # one

    assert rates_of(fit, Adds(halved("step")), key="lr_pg1") == [0.25, 0.125]


def test_optimizers_that_are_not_of_torch_and_replaced_ones_are_read(fit: Any) -> None:
    class Foreign:
        """Optimizer with the interface that Lightning asks for, without hooks."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.defaults, self.state = inner, inner.defaults, inner.state
            self.param_groups = inner.param_groups
            self.zero_grad, self.state_dict, self.load_state_dict = (
                inner.zero_grad,
                inner.state_dict,
                inner.load_state_dict,
            )

        def step(self, closure: Any = None) -> Any:
            return self.inner.step(closure)

    class Replaces(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            trainer.optimizers = [torch.optim.SGD([pl_module.actor], lr=0.125)]

    assert rates_of(fit, SetsInTrainingStep(lambda module: Foreign(sgd(module)))) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates_of(fit, Planted(sgd), Replaces()) == [1.0, 0.125, 0.125, 0.125]


def test_group_without_a_rate_is_left_out(fit: Any) -> None:
    class Rateless(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {})

        def step(self, closure: Any = None) -> Any:  # type: ignore[override]
            return closure()

    tracker = MemoryTracker()
    callback = MetricsCallback({"metrics": {"every_n_steps": 1}, "on_error": "raise"}, tracker=tracker)
    fit(Planted(lambda module: Rateless([module.actor])), callback)
    assert len(tracker.column("train/loss")) == 4
    assert tracker.column("train/lr") == []


def test_resumed_training_goes_on_with_the_used_rates(fit: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "half.ckpt")
    fit(Planted(halved("step"))).save_checkpoint(path)
    assert rates_of(fit, Planted(halved("step")), max_epochs=2, ckpt_path=path) == [1 / 16, 1 / 32, 1 / 64, 1 / 128]


@pytest.mark.parametrize("raises", [False, True])
def test_no_hook_is_left_on_the_optimizer(fit: Any, raises: bool) -> None:
    class Fails(Planted):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            optimizer: Any = self.trainer.optimizers[0]
            hooks.append(len(optimizer._optimizer_step_post_hooks))
            optimizers.append(optimizer)
            pickle.loads(pickle.dumps(optimizer))
            if raises and batch_idx == 2:
                raise RuntimeError("stop")

    hooks: list[int] = []
    optimizers: list[Any] = []
    callback = WandbRLCallback({"metrics": {"every_n_steps": 1}}, tracker=MemoryTracker())
    for _ in range(2):  # the same callback in two trainings
        if raises:
            with pytest.raises(RuntimeError, match="stop"):
                fit(Fails(sgd), callback)
        else:
            fit(Fails(sgd), callback)
    assert set(hooks) == {1}
    assert all(not optimizer._optimizer_step_post_hooks for optimizer in optimizers)
    pickle.loads(pickle.dumps(callback))


def test_rates_that_are_new_tensors_at_each_step_are_not_kept() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = OptimizerSteps()
    steps.follow([optimizer])
    replaced = []
    for step in range(4):
        rate = torch.tensor(1.0 + step)
        optimizer.param_groups[0]["lr"] = rate
        replaced.append(weakref.ref(rate))
        optimizer.step()
        assert steps.rates(optimizer) == [1.0 + step]
    del rate
    assert [each() is None for each in replaced] == [True, True, True, False]
