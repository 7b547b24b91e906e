"""Gradients as backward passes left them, whatever the module does to them before the optimizer steps."""

from __future__ import annotations

import contextlib
import copy
import pickle
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import MemoryTracker, TinyQ

FACTORS = torch.tensor([3.0, 4.0])  # the gradient of the planted loss, whose norm is 5


class Planted(TinyQ):
    """The gradient of the last bias has the norm 5, 10, 15 in the batches 0, 1, 2; no update changes a weight."""

    fused = False

    def __init__(self) -> None:
        super().__init__(batches=3)

    @property
    def bias(self) -> torch.nn.Parameter:
        return self.q_network[2].bias

    def loss(self, batch_idx: int) -> torch.Tensor:
        return (self.bias * FACTORS * (batch_idx + 1)).sum()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.loss(batch_idx)}

    def clip(self, *_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(self.q_network.parameters(), 0.5)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.q_network.parameters(), lr=0.0, fused=self.fused)


class Manual(Planted):
    """Calls backward and clips by itself."""

    wrapped = True

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers(use_pl_optimizer=self.wrapped)
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch_idx))
        self.clip(optimizer)
        optimizer.step()


def rows_of(fit: Any, module: Any, *callbacks: Any, log_freq: int = 1, **options: Any) -> MemoryTracker:
    tracker = MemoryTracker()
    gradients = {"log_freq": log_freq, "log": "gradients"}
    cfg = {"gradient_logger": True, "gradients": gradients, "metrics": {"every_n_steps": log_freq}, "on_error": "raise"}
    fit(module, *callbacks, WandbRLCallback(cfg, tracker=tracker), **options)
    return tracker


def norms_of(tracker: MemoryTracker) -> list[float]:
    assert tracker.column("train/grad_norm") == pytest.approx(tracker.column("grad_norm/total"))
    return tracker.column("grad_norm/total")


class ClipsByLightning(Manual):
    def clip(self, *given: Any) -> None:
        self.clip_gradients(given[0], gradient_clip_val=0.5, gradient_clip_algorithm="norm")


class ClampsData(Manual):
    def clip(self, *_: Any) -> None:
        self.bias.grad.data.clamp_(-0.1, 0.1)  # type: ignore[union-attr]  # it has a gradient


class ClipsOutOfPlace(Manual):
    def clip(self, *_: Any) -> None:
        self.bias.grad = self.bias.grad * 0.1  # type: ignore[operator]  # it has a gradient


class CallsBackwardItself(Manual):
    def manual_backward(self, loss: torch.Tensor, *_: Any, **__: Any) -> None:
        loss.backward()


class WithoutWrapper(Manual):
    wrapped = False


class ClearsAfterwards(WithoutWrapper):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        self.optimizers(use_pl_optimizer=False).zero_grad()  # type: ignore[union-attr]  # one optimizer


class StepsByClosure(Manual):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()

        def closure() -> None:
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch_idx))
            self.clip()

        optimizer.step(closure=closure)


class FrozenBetweenBatches(Manual):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.q_network.requires_grad_(True)
        super().training_step(batch, batch_idx)
        self.q_network.requires_grad_(False)


class HasOwnScaler(Manual):
    def __init__(self) -> None:
        super().__init__()
        self.scaler: Any = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.scaler.scale(self.loss(batch_idx)).backward()
        self.scaler.unscale_(optimizer)
        self.clip()
        self.scaler.step(optimizer)
        self.scaler.update()


class ClipsInHook(Planted):
    def on_after_backward(self) -> None:
        self.clip()


class ClipsInBackward(Planted):
    def backward(self, loss: torch.Tensor, *_: Any, **__: Any) -> None:
        loss.backward()
        self.clip()


class ClipsInOptimizerStep(Planted):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer_closure()
        self.clip()
        optimizer.step()


MODULES = [
    Manual,
    ClipsByLightning,
    ClampsData,
    ClipsOutOfPlace,
    CallsBackwardItself,
    WithoutWrapper,
    ClearsAfterwards,
    StepsByClosure,
    FrozenBetweenBatches,
    HasOwnScaler,
    ClipsInHook,
    ClipsInBackward,
    ClipsInOptimizerStep,
]


@pytest.mark.parametrize("kind", MODULES)
def test_norms_and_histograms_are_those_before_clipping(fit: Any, kind: type[Planted]) -> None:
    tracker = rows_of(fit, kind())
    assert norms_of(tracker) == pytest.approx([5.0, 10.0, 15.0])
    edges = [histogram.edges for histogram in tracker.column("gradients/q_network.2.bias")]
    assert [each[0] for each in edges] == pytest.approx([3.0, 6.0, 9.0])
    assert [each[-1] for each in edges] == pytest.approx([4.0, 8.0, 12.0])


@pytest.mark.parametrize("package", [__name__, "pytorch_lightning_agents.callbacks"])
def test_another_callback_that_clips_does_not_matter(fit: Any, package: str) -> None:
    class Clips(pl.Callback):
        def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
            pl_module.clip()

    Clips.on_after_backward.__module__ = package
    assert norms_of(rows_of(fit, Planted(), Clips())) == pytest.approx([5.0, 10.0, 15.0])


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_unscaled_under_mixed_precision(fit: Any, fused: bool) -> None:
    module = ClampsData()
    module.fused = fused
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=1024.0)
    tracker = rows_of(fit, module, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)])
    assert norms_of(tracker) == pytest.approx([5.0, 10.0, 15.0])


def test_several_backward_passes_add_up(fit: Any) -> None:
    class Twice(Manual):
        def loss(self, batch_idx: int) -> torch.Tensor:
            super().loss(batch_idx).backward()
            return super().loss(batch_idx)

    assert norms_of(rows_of(fit, Twice())) == pytest.approx([10.0, 20.0, 30.0])


def test_gradients_accumulate_over_batches(fit: Any) -> None:
    class Accumulates(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer: Any = self.optimizers()
            self.manual_backward(self.loss(batch_idx))
            if batch_idx == 2:
                self.clip()
                optimizer.step()

    assert rows_of(fit, Accumulates(), log_freq=1).column("grad_norm/total") == pytest.approx([30.0])


@pytest.mark.parametrize("gradient_logger", [False, True])
def test_the_norm_of_metrics_is_that_of_steps_with_and_without_histograms(fit: Any, gradient_logger: bool) -> None:
    class StepsInBatch1(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.manual_backward(self.loss(batch_idx))
            if batch_idx == 1:
                self.clip()
                self.optimizers().step()  # type: ignore[union-attr]  # one optimizer

    tracker = MemoryTracker()
    settings = {"metrics": {"every_n_steps": 1}, "gradients": {"log_freq": 1}, "gradient_logger": gradient_logger}
    fit(StepsInBatch1(), WandbRLCallback({**settings, "on_error": "raise"}, tracker=tracker))
    norms = [(row["time/updates"], row["train/grad_norm"]) for row in tracker.rows if "train/grad_norm" in row]
    assert norms == [(1, pytest.approx(15.0))]


def test_a_backward_pass_that_fails_half_way_can_be_repeated(fit: Any) -> None:
    class FailsOnce(torch.autograd.Function):
        has_failed = False

        @staticmethod
        def forward(_: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
            if not FailsOnce.has_failed:
                FailsOnce.has_failed = True
                raise RuntimeError("out of memory")
            return gradient

    class Repeats(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            FailsOnce.has_failed = False
            for _ in range(2):
                self.optimizers().zero_grad()  # type: ignore[union-attr]  # one optimizer
                hidden = FailsOnce.apply(self.q_network[0].bias[:1] * 0)  # type: ignore[no-untyped-call]  # torch's own
                with contextlib.suppress(RuntimeError):
                    self.manual_backward((self.bias * (FACTORS * (batch_idx + 1) + hidden)).sum())
            self.clip()
            self.optimizers().step()  # type: ignore[union-attr]  # one optimizer

    norms = rows_of(fit, Repeats()).column("train/grad_norm")
    assert norms == pytest.approx([5.0, 10.0, 15.0])


@pytest.mark.parametrize("set_to_none", [False, True])
def test_gradients_that_were_reset_do_not_count(fit: Any, set_to_none: bool) -> None:
    class Resets(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer: Any = self.optimizers()
            self.manual_backward(self.loss(batch_idx))
            optimizer.zero_grad(set_to_none=set_to_none)
            self.manual_backward(2 * self.q_network[0].bias[0])
            self.clip()
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)

    assert norms_of(rows_of(fit, Resets())) == pytest.approx([2.0, 2.0, 2.0])


def test_gradients_that_the_module_combines_itself_are_taken(fit: Any) -> None:
    class Combines(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer: Any = self.optimizers()
            parts = []
            for _ in range(2):
                optimizer.zero_grad()
                self.manual_backward(self.loss(batch_idx))
                parts.append(self.bias.grad.clone())  # type: ignore[union-attr]  # it has a gradient
            optimizer.zero_grad()
            self.bias.grad = parts[0] + parts[1]
            optimizer.step()

    assert norms_of(rows_of(fit, Combines())) == pytest.approx([10.0, 20.0, 30.0])


def test_each_of_two_optimizers_has_the_gradients_of_its_own_step(fit: Any) -> None:
    class Two(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            critic, actor = self.optimizers()  # type: ignore[misc, union-attr]  # a list of two
            critic.zero_grad()
            self.manual_backward(self.loss(0))
            self.clip()
            critic.step()
            actor.zero_grad()
            self.manual_backward(12 * self.q_network[0].bias[0] + 100 * self.bias.sum())  # also reaches the critic
            self.clip()
            actor.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.q_network[i].parameters(), lr=0.0) for i in (2, 0)]

    tracker = rows_of(fit, Two())
    assert norms_of(tracker) == pytest.approx([13.0, 13.0, 13.0])
    assert tracker.column("grad_norm/q_network.2") == pytest.approx([5.0, 5.0, 5.0])


def test_networks_can_be_copied_and_pickled_while_hooks_are_set_and_hooks_are_removed(fit: Any) -> None:
    hooks: list[int] = []

    class Copies(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            hooks.append(len(self.bias._post_accumulate_grad_hooks or ()))
            clone = copy.deepcopy(self.q_network)
            assert clone[2].bias._post_accumulate_grad_hooks is None
            pickle.dumps(self.q_network)
            pickle.dumps(self.optimizers(use_pl_optimizer=False))
            super().training_step(batch, batch_idx)

    module = Copies()
    rows_of(fit, module, log_freq=2)
    assert hooks == [0, 1, 0]
    assert not module.bias._post_accumulate_grad_hooks


def test_hooks_are_removed_after_an_exception_in_training(fit: Any) -> None:
    class Stops(Manual):
        def clip(self, *_: Any) -> None:
            raise RuntimeError("boom")

    module = Stops()
    with pytest.raises(RuntimeError, match="boom"):
        rows_of(fit, module)
    assert not module.bias._post_accumulate_grad_hooks


def test_modules_that_do_not_touch_gradients_get_no_hooks(fit: Any) -> None:
    class Plain(Planted):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            assert not self.bias._post_accumulate_grad_hooks
            return super().training_step(batch, batch_idx)

    assert norms_of(rows_of(fit, Plain())) == pytest.approx([5.0, 10.0, 15.0])
