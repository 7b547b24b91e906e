"""Evaluations play what validation sees and what fit returns where callbacks or hooks of users replace weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from caught_warnings import package_warnings
from falling_weights import RETURN, Actor, Falls, PaysTheAction, Raises, Validated, WithNorm, evaluation, played
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, ModelPruning
from torch import nn

from rlwandb_callbacks.testing import MemoryTracker

EPOCH_HOOKS = ("on_validation_epoch_start", "on_validation_epoch_end")
OUTER_HOOKS = ("on_validation_start", "on_validation_end")


class Averages(Callback):
    """Validates half of the weights, and leaves them in the module; files hold the trained ones."""

    hooks: tuple[str, ...] = EPOCH_HOOKS
    factor = 0.5

    def _call(self, hook: str, module: Any) -> None:
        if hook == self.hooks[0]:
            self.trained = module.weight.detach().clone()
            module.weight.data.mul_(self.factor)
        elif hook == self.hooks[1]:
            module.weight.data.copy_(self.trained)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._call("on_validation_start", pl_module)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._call("on_validation_epoch_start", pl_module)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._call("on_validation_epoch_end", pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._call("on_validation_end", pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.weight.data.mul_(self.factor)


class AveragesByOuterHooks(Averages):
    hooks = OUTER_HOOKS


class SavesTheAverage(Averages):
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        checkpoint["state_dict"]["weight"] = self.factor * pl_module.weight.detach()


class TwoModes(torch.optim.SGD):
    """Optimizer whose parameters are half of what it trains while it is in its evaluation mode."""

    def eval(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.data.mul_(0.5)

    def train(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.data.mul_(2.0)


class ScheduleFree(Validated):
    """Follows the recipe of optimizers without a schedule."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return TwoModes(self.parameters(), lr=0.01)

    def on_validation_epoch_start(self) -> None:
        self.optimizers().optimizer.eval()

    def on_validation_epoch_end(self) -> None:
        self.optimizers().optimizer.train()

    def on_train_end(self) -> None:
        self.optimizers().optimizer.eval()


class Prunable(Falls):
    """Four weights 0.5, 1, 2, 4, whose sum is the action."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1, bias=False)
        self.layer.weight.data = torch.tensor([[0.5, 1.0, 2.0, 4.0]])

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.ones(len(observations), 4))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return 0.0 * self.layer(torch.ones(1, 4)).sum()


class WithTarget(Falls):
    """Updates a target network that is not played in a hook of its own."""

    updated_in = "on_train_batch_end"

    def __init__(self) -> None:
        super().__init__()
        self.actor = Actor(self.weight)
        self.target = nn.Linear(1, 1)

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return self.act(observations)

    @torch.no_grad()
    def act(self, observations: torch.Tensor) -> torch.Tensor:
        return self.actor(observations)

    def _update(self, hook: str) -> None:
        if hook == self.updated_in:
            self.target.weight.data.mul_(0.9)

    def on_train_batch_end(self, *_: Any) -> None:
        self._update("on_train_batch_end")

    def on_train_epoch_end(self) -> None:
        self._update("on_train_epoch_end")

    def on_train_end(self) -> None:
        self._update("on_train_end")


class EndsWithout(Callback):
    """Changes weights, a buffer or nothing at the end of training."""

    def __init__(self, changed: str) -> None:
        self.changed = changed

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        tensor = dict(pl_module.named_parameters()) | dict(pl_module.named_buffers())
        if self.changed:
            tensor[self.changed].data.add_(1)


@pytest.mark.parametrize("make", [Averages, AveragesByOuterHooks, SavesTheAverage, None])
@pytest.mark.parametrize("is_first", [True, False])
def test_evaluations_play_what_hooks_give_to_validation(fit: Any, make: Any, is_first: bool) -> None:
    tracker, module = MemoryTracker(), ScheduleFree() if make is None else Validated()
    others = [] if make is None else [make()]
    callbacks = [evaluation(tracker), *others] if is_first else [*others, evaluation(tracker)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, *callbacks, val_check_interval=5, num_sanity_val_steps=0)
    is_known = None if is_first and make is AveragesByOuterHooks else 1.0
    assert module.seen == pytest.approx([0.475, 0.45])
    assert played(tracker) == [(5, 0.475, is_known), (10, 0.45, is_known)]
    assert module.weight.item() == pytest.approx(0.45)
    assert package_warnings(caught) == []


@pytest.mark.parametrize(("make", "held"), [(Averages, 0.9), (SavesTheAverage, 0.45)])
def test_checkpoint_that_monitors_the_return_of_other_weights_is_warned_of_once(fit: Any, make: Any, held: Any) -> None:
    tracker = MemoryTracker()
    saving = ModelCheckpoint("best", monitor=RETURN, mode="min", save_on_train_epoch_end=False)
    options = {"val_check_interval": 5, "num_sanity_val_steps": 0, "enable_checkpointing": True}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Validated(), make(), evaluation(tracker), saving, **options)
    (file,) = Path("best").iterdir()
    assert torch.load(file, weights_only=False)["state_dict"]["weight"].item() == pytest.approx(held)
    (message,) = package_warnings(caught)
    assert "ModelCheckpoint monitors eval/return_mean, and evaluations play the weights that validation_step" in message
    assert f"replaced the weights for validation: {make.__name__}.on_validation_start, " in message


def test_hooks_that_replace_no_weights_change_nothing(fit: Any) -> None:
    callback, tracker = Averages(), MemoryTracker()
    callback.factor = 1.0
    fit(Validated(), evaluation(tracker), callback)
    assert played(tracker) == [(10, 0.9, None)]


def test_validate_plays_what_its_hooks_give(fit: Any) -> None:
    tracker, module = MemoryTracker(), Validated()
    trainer = fit(module, Averages(), evaluation(tracker), num_sanity_val_steps=0)
    trainer.validate(module, verbose=False)
    assert [row[1:] for row in played(tracker)] == [(0.45, 1.0), (0.225, 1.0)]
    assert module.weight.item() == pytest.approx(0.45)


@pytest.mark.filterwarnings("ignore:rlwandb")
@pytest.mark.parametrize("env", [PaysTheAction, Raises])
def test_weights_and_optimizer_are_as_without_the_evaluation(fit: Any, env: Any) -> None:
    states = []
    for is_evaluated in (True, False):
        module = ScheduleFree()
        ours = [evaluation(MemoryTracker(), on_error="warn", env=env)] if is_evaluated else []
        trainer = fit(module, *ours, val_check_interval=2, max_epochs=2)
        states.append((module.weight.item(), module.seen, trainer.optimizers[0].state_dict()))
    assert states[0] == states[1]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("make", [ScheduleFree, Falls])
def test_without_validation_the_last_evaluation_is_of_the_module_that_fit_returns(
    fit: Any, make: Any, is_first: bool
) -> None:
    class Trained(make):  # type: ignore[misc]  # a class that is passed
        validation_step = val_dataloader = None

    tracker, module = MemoryTracker(), Trained()
    callbacks = [evaluation(tracker), *([Averages()] if make is Falls else [])]
    fit(module, *(callbacks if is_first else reversed(callbacks)))
    assert module.weight.item() == pytest.approx(0.45)
    assert played(tracker) == [(10, 0.9, None), (10, 0.45, None)]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("is_permanent", [True, False])
def test_pruned_module_is_evaluated_last(fit: Any, is_permanent: bool, is_first: bool) -> None:
    tracker, module = MemoryTracker(), Prunable()
    settings = {"use_lottery_ticket_hypothesis": False, "use_global_unstructured": False, "amount": 2}
    pruning = ModelPruning(
        "l1_unstructured", [(module.layer, "weight")], make_pruning_permanent=is_permanent, **settings
    )
    fit(module, *([evaluation(tracker), pruning] if is_first else [pruning, evaluation(tracker)]))
    returns = [row[1] for row in played(tracker)]
    assert returns == ([7.5, 6.0] if is_first else [6.0])


@pytest.mark.parametrize(
    ("changed", "last"), [("", 0), ("steps", 0), ("norm.num_batches_tracked", 0), ("norm.running_mean", 1)]
)
def test_one_more_evaluation_only_if_floating_point_values_have_changed(fit: Any, changed: str, last: int) -> None:
    tracker = MemoryTracker()
    fit(WithNorm(), evaluation(tracker), EndsWithout(changed))
    (first, *more) = [row[1] for row in played(tracker)]
    assert more == [pytest.approx(first + 1)] * last


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_epoch_end", "on_train_end"])
@pytest.mark.parametrize("kind", ["name", "network", "method"])
@pytest.mark.parametrize("is_played", [False, True])
def test_update_of_a_network_that_is_not_played_is_not_evaluated(
    fit: Any, hook: str, kind: str, is_played: bool
) -> None:
    tracker, module = MemoryTracker(), WithTarget()
    module.updated_in = hook
    policy = {"name": "actor", "network": module.actor, "method": "policy"}[kind]
    changes = [EndsWithout("weight")] if is_played else []
    fit(module, evaluation(tracker, every_n_steps=5, policy=policy), *changes)
    # What a method plays cannot be told, so that later hooks of the module may have changed it.
    is_repeated = kind == "method" and hook != "on_train_batch_end"
    last = [(10, 1.9, None)] if is_played else [(10, 0.9, None)] * is_repeated
    assert played(tracker) == [(5, 0.95, None), (10, 0.9, None), *last]


@pytest.mark.parametrize("max_epochs", [1, 2])
@pytest.mark.parametrize("is_first", [True, False])
def test_training_that_went_on_after_the_last_validation_is_not_evaluated_again(
    fit: Any, is_first: bool, max_epochs: int
) -> None:
    rows = {}
    for changed in ("", "weight"):
        tracker = MemoryTracker()
        callbacks = [evaluation(tracker), EndsWithout(changed)]
        options = {"val_check_interval": 7, "num_sanity_val_steps": 0, "max_epochs": max_epochs}
        fit(Validated(), *(callbacks if is_first else reversed(callbacks)), **options)
        rows[changed] = played(tracker)
    assert [row[:2] for row in rows[""]] == [(7, 0.93), (17, 0.83)][:max_epochs]
    updates = 10 * max_epochs
    assert rows["weight"] == [*rows[""], (updates, pytest.approx(2 - 0.01 * updates), None)]


def test_training_that_raises_has_no_further_evaluation(fit: Any) -> None:
    class Breaks(Falls):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if batch_idx == 5:
                raise KeyError("simulator")
            return super().training_step(batch, batch_idx)

    tracker = MemoryTracker()
    with pytest.raises(KeyError):
        fit(Breaks(), evaluation(tracker, every_n_steps=2), EndsWithout("weight"))
    assert [row[0] for row in played(tracker)] == [2, 4]
