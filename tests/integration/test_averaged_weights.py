"""Evaluations play the weights that validation sees, that checkpoints hold, and that fit leaves in the module."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from caught_warnings import package_warnings
from falling_weights import RETURN, Actor, Falls, PaysTheAction, Raises, Validated, WithNorm, evaluation, played
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rlwandb_callbacks import MetricsCallback
from rlwandb_callbacks.testing import MemoryTracker


class AveragesEpochs(WeightAveraging):
    """Averages at the end of epochs, after their validation."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None


def exponential_average(updates: int, decay: float = 0.9) -> float:
    """Returns the average of the weights of :class:`Falls`, which begins with those after its first update."""
    average = 0.99
    for update in range(2, updates + 1):
        average = decay * average + (1 - decay) * (1 - 0.01 * update)
    return round(average, 5)


def ema(**options: Any) -> EMAWeightAveraging:
    return EMAWeightAveraging(decay=0.9, **options)


def swa(start: int = 1) -> StochasticWeightAveraging:
    return StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=start)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"device": "cpu", "use_buffers": False}])
def test_evaluations_play_what_validation_sees_and_files_hold(fit: Any, options: Any, is_first: bool) -> None:
    tracker, module = MemoryTracker(), Validated()
    ours, average = evaluation(tracker), ema(**options)
    saving = ModelCheckpoint("best", monitor=RETURN, mode="max", save_on_train_epoch_end=False)
    callbacks = [ours, average, saving] if is_first else [average, saving, ours]
    fit(module, *callbacks, val_check_interval=5, num_sanity_val_steps=0, enable_checkpointing=True)
    expected = [(5, exponential_average(5), 1.0), (10, exponential_average(10), 1.0)]
    assert expected == [(5, 0.98095, 1.0), (10, 0.95513, 1.0)]
    assert played(tracker) == expected
    assert [round(weight, 5) for weight in module.seen] == [0.98095, 0.95513]
    (file,) = Path("best").iterdir()
    held = torch.load(file, weights_only=False)["state_dict"]["weight"]
    assert float(saving.best_model_score) == pytest.approx(held.item())
    assert module.weight.item() == pytest.approx(exponential_average(10), abs=1e-5)


def test_average_in_another_dtype_than_the_module_is_evaluated_once(fit: Any) -> None:
    tracker, module = MemoryTracker(), Validated()
    fit(module, evaluation(tracker), ema(), precision="bf16-true", num_sanity_val_steps=0)
    assert played(tracker) == [(10, round(module.weight.item(), 5), 1.0)]
    assert module.seen == [module.weight.item()]


@pytest.mark.parametrize("is_first", [True, False])
def test_without_a_validation_loop_the_average_of_the_same_batch_is_played(fit: Any, is_first: bool) -> None:
    tracker = MemoryTracker()
    callbacks = [evaluation(tracker, every_n_steps=4), ema()]
    fit(Falls(), *(callbacks if is_first else reversed(callbacks)), max_epochs=2)
    assert played(tracker) == [(update, exponential_average(update), 1.0) for update in (4, 8, 12, 16, 20)]


@pytest.mark.filterwarnings("ignore:rlwandb. AveragesEpochs has not averaged")
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("module", [Falls, Validated])
def test_average_that_changes_after_the_last_validation_is_evaluated_at_the_end(
    fit: Any, module: Any, is_first: bool
) -> None:
    tracker, trained = MemoryTracker(), module()
    callbacks = [evaluation(tracker), AveragesEpochs()]
    fit(trained, *(callbacks if is_first else reversed(callbacks)), max_epochs=2, num_sanity_val_steps=0)
    assert trained.weight.item() == pytest.approx(0.85), "mean of 0.9 and 0.8"
    rows = [(10, 1.0, 1.0), (20, 0.9, 1.0), (20, 0.85, 1.0)] if module is Validated else [(20, 0.85, 1.0)]
    assert played(tracker) == rows


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1)])
@pytest.mark.parametrize("module", [Falls, Validated])
def test_last_evaluation_is_of_the_stochastic_average_that_fit_returns(
    fit: Any, module: Any, order: tuple[int, ...]
) -> None:
    tracker, trained = MemoryTracker(), module()
    stopping = EarlyStopping(RETURN, mode="min", patience=9)
    callbacks = [evaluation(tracker), swa(2), stopping]
    fit(trained, *[callbacks[i] for i in order], max_epochs=3, num_sanity_val_steps=0)
    assert trained.weight.item() == pytest.approx(0.85), "mean of 0.9 and 0.8, at the start of epochs 2 and 3"
    trained_rows = [(10, 0.9, 0.0), (20, 0.8, 0.0), (30, 0.7, 0.0)]
    assert played(tracker) == [*trained_rows, (30, 0.85, 1.0)]


def test_stochastic_average_with_batch_norm_is_evaluated_with_its_last_statistics(fit: Any) -> None:
    tracker, module = MemoryTracker(), WithNorm()
    fit(module, evaluation(tracker, every_n_steps=10), swa(), max_epochs=2)
    updates, value, averaged = played(tracker)[-1]
    assert (updates, averaged) == (20, 1.0)
    assert value == pytest.approx(module.weight.item() + module.norm.running_mean.item(), abs=1e-5)


def test_training_stopped_before_the_stochastic_average_is_used_ends_with_the_trained_weights(fit: Any) -> None:
    tracker = MemoryTracker()
    fit(Falls(), evaluation(tracker), swa(), max_epochs=5, max_steps=13)
    assert played(tracker) == [(13, 0.87, 0.0)]


@pytest.mark.parametrize("callbacks", [[ema, swa], [swa, ema]])
def test_of_two_averages_the_one_that_the_module_has_in_the_end_is_evaluated_last(fit: Any, callbacks: Any) -> None:
    tracker, module = MemoryTracker(), Falls()
    fit(module, evaluation(tracker), *[make() for make in callbacks], max_epochs=2)
    assert played(tracker)[-1] == (20, round(module.weight.item(), 5), 1.0)


def test_of_two_averages_that_lightning_exchanges_the_one_in_the_file_is_played(fit: Any) -> None:
    tracker, module = MemoryTracker(), Validated()
    saving = ModelCheckpoint("best", monitor=RETURN, save_on_train_epoch_end=False)
    options = {"num_sanity_val_steps": 0, "enable_checkpointing": True, "max_steps": 10}
    with pytest.warns(UserWarning, match="EMAWeightAveraging and WeightAveraging both swap an average in"):
        fit(module, evaluation(tracker), ema(), WeightAveraging(), saving, **options)
    assert module.seen == pytest.approx([0.945]), "mean of 0.99, 0.98, ..., 0.9"
    (file,) = Path("best").iterdir()
    held = torch.load(file, weights_only=False)["state_dict"]["weight"].item()
    assert played(tracker)[0] == (10, round(held, 5), 1.0)


class Remembers(Callback):
    """Compares training with an evaluation and without one."""

    def __init__(self) -> None:
        self.states: list[Any] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        average = next(c._average_model for c in trainer.callbacks if hasattr(c, "_average_model"))
        self.states.append(copy.deepcopy((pl_module.state_dict(), average.state_dict(), torch.get_rng_state())))


@pytest.mark.filterwarnings("ignore:rlwandb")
@pytest.mark.parametrize("env", [PaysTheAction, Raises])
@pytest.mark.parametrize("make_average", [ema, swa, WeightAveraging])
def test_training_and_average_are_bit_identical(fit: Any, make_average: Any, env: Any) -> None:
    states = []
    for is_evaluated in (True, False):
        torch.manual_seed(0)
        remembers, module = Remembers(), WithNorm()
        ours = [evaluation(MemoryTracker(), every_n_steps=1, on_error="warn", env=env)] if is_evaluated else []
        fit(module, remembers, make_average(), *ours, max_epochs=2)
        states.append([*remembers.states, (module.state_dict(), {}, torch.get_rng_state())])
    for mine, plain in zip(*states, strict=True):
        for theirs, expected in zip(mine[:2], plain[:2], strict=True):
            assert all(torch.equal(theirs[name], expected[name]) for name in expected)
        assert torch.equal(mine[2], plain[2])


def test_average_that_has_not_begun_is_played_with_one_warning(fit: Any) -> None:
    tracker, module = MemoryTracker(), Validated()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        average = ema(update_starting_at_step=100)
        fit(module, evaluation(tracker), average, val_check_interval=5, num_sanity_val_steps=0)
    assert played(tracker) == [(5, 1.0, 1.0), (10, 1.0, 1.0)]
    assert (module.seen, module.weight.item()) == ([1.0, 1.0], 1.0)
    (message,) = package_warnings(caught)
    assert "EMAWeightAveraging has not averaged any weights after 5 steps (update_starting_at_step=100)" in message


def test_stochastic_average_without_an_epoch_is_evaluated_with_one_warning(fit: Any) -> None:
    tracker, module = MemoryTracker(), Falls()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, evaluation(tracker), swa(5), max_epochs=-1, max_steps=10)
    assert module.weight.item() == 1.0
    assert played(tracker) == [(10, 0.9, 0.0), (10, 1.0, 1.0)]
    (message,) = package_warnings(caught)
    assert "StochasticWeightAveraging has averaged no epoch" in message


def test_policy_that_holds_a_copy_of_the_weights_is_evaluated_with_its_own(fit: Any) -> None:
    tracker, module = MemoryTracker(), Falls()
    twin = copy.deepcopy(module)
    with pytest.warns(UserWarning, match="'policy' has none of the parameters that EMAWeightAveraging averages"):
        fit(module, evaluation(tracker, policy=twin.policy), ema())
    assert played(tracker) == [(10, 1.0, 0.0)]


def test_policy_object_that_shares_parameters_is_evaluated_with_the_average(fit: Any) -> None:
    tracker, module = MemoryTracker(), Falls()
    fit(module, evaluation(tracker, policy=Actor(module.weight)), ema())
    assert played(tracker) == [(10, exponential_average(10), 1.0)]


def test_average_that_a_module_keeps_itself_is_left_to_the_module(fit: Any) -> None:
    class KeepsAverage(Falls):
        def __init__(self) -> None:
            super().__init__()
            self.average = AveragedModel(nn.Linear(1, 1))

    tracker = MemoryTracker()
    fit(KeepsAverage(), evaluation(tracker))
    assert played(tracker) == [(10, 0.9, None)]


def test_resumed_training_plays_its_average(fit: Any) -> None:
    tracker, module = MemoryTracker(), Validated()
    saving = ModelCheckpoint("saved", save_last=True)
    fit(Validated(), ema(), saving, enable_checkpointing=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, evaluation(tracker), ema(), max_epochs=2, ckpt_path="saved/last.ckpt", num_sanity_val_steps=0)
    assert played(tracker) == [(20, exponential_average(20), 1.0)]
    assert module.seen == pytest.approx([exponential_average(20)], abs=1e-5)
    assert package_warnings(caught) == []


def test_validate_after_fit_plays_what_its_validation_sees(fit: Any) -> None:
    tracker, module = MemoryTracker(), Validated()
    saving = ModelCheckpoint("saved", save_last=True)
    trainer = fit(module, evaluation(tracker), ema(), saving, num_sanity_val_steps=0, enable_checkpointing=True)
    trainer.validate(module, ckpt_path="saved/last.ckpt", verbose=False)
    assert module.weight.item() == pytest.approx(0.9), "Lightning loads the trained weights"
    assert played(tracker) == [(10, exponential_average(10), 1.0)] * 2
    assert module.seen == pytest.approx([exponential_average(10)] * 2, abs=1e-5)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`", "ignore:You're using the WeightAveraging")
@pytest.mark.parametrize("has_average", [True, False])
def test_checkpoint_with_an_average_is_evaluated_by_a_new_trainer(fit: Any, has_average: bool) -> None:
    tracker, module = MemoryTracker(), Validated()
    fit(Validated(), ema()).save_checkpoint("average.ckpt")
    fit(Validated()).save_checkpoint("trained.ckpt")
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    callbacks = [evaluation(tracker), *([ema()] if has_average else [])]
    trainer = pl.Trainer(**quiet, accelerator="cpu", callbacks=callbacks)
    for path in ("average.ckpt", "trained.ckpt"):
        trainer.validate(module, ckpt_path=path, verbose=False)
    average, trained = (row[1:] for row in played(tracker))
    assert average == (exponential_average(10), 1.0)
    assert trained == pytest.approx((0.9, math.nan), nan_ok=True)  # unknown, and no longer the 1 of the row before


def test_callbacks_of_users_keep_their_order_unless_monitors_must_follow(fit: Any) -> None:
    average, stopping, other = ema(), EarlyStopping(RETURN, mode="min", patience=9), Callback()
    ours, metrics = evaluation(MemoryTracker()), MetricsCallback(tracker=MemoryTracker())
    trainer = fit(Falls(), ours, stopping, metrics, other, average)
    assert trainer.callbacks == [other, average, ours, metrics, stopping]
    plain = fit(Falls(), ours, other, metrics)
    assert plain.callbacks == [ours, other, metrics]
