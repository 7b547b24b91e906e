"""Training in half precision: what a ``GradScaler`` does to gradients, and steps that it skips."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.callbacks.skipped_steps import Overflow
from rlwandb_callbacks.testing import MemoryTracker, TinyQ, read_offline_run

LEARNING_RATE = 2**-10
FACTORS = torch.tensor([3.0, 4.0])  # the gradient, whose norm is 5
SKIPPED = 3  # 4 * 65536, 4 * 32768 and 4 * 16384 are beyond the largest float16, 65504; 4 * 8192 is not
SCALE = 8192.0


class Half(TinyQ):
    """Its gradient passes through ``float16``, so that the first three of six steps overflow."""

    def __init__(self, batches: int = 6, *, fused: bool = False) -> None:
        super().__init__(batches)
        self.fused = fused
        torch.nn.init.zeros_(self.bias)

    @property
    def bias(self) -> torch.nn.Parameter:
        return self.q_network[2].bias

    def loss(self, batch_idx: int) -> torch.Tensor:
        return (self.bias.half() * FACTORS.half()).sum().float()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.loss(batch_idx)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.bias], lr=LEARNING_RATE, fused=self.fused)


class WithHook(Half):
    def on_after_backward(self) -> None:
        self.bias.grad.mul_(1.0)  # type: ignore[union-attr]  # it has a gradient


class Manual(Half):
    def __init__(self, batches: int = 6, *, fused: bool = False) -> None:
        super().__init__(batches, fused=fused)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch_idx))
        optimizer.step()


class OwnScaler(Manual):
    """Scales its loss without Lightning."""

    wrapped = False

    def __init__(self, batches: int = 6, *, fused: bool = False) -> None:
        super().__init__(batches, fused=fused)
        self.make_scaler()

    def make_scaler(self) -> None:
        self.own_scaler: Any = torch.amp.GradScaler("cpu")

    @property
    def scaler(self) -> Any:
        return self.own_scaler

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers(use_pl_optimizer=self.wrapped)
        optimizer.zero_grad()
        self.scaler.scale(self.loss(batch_idx)).backward()
        self.scaler.step(optimizer)
        self.scaler.update()


class Renamed(torch.amp.GradScaler):
    pass


class NestedScaler(OwnScaler):
    def make_scaler(self) -> None:
        self.agent = SimpleNamespace(parts=[{"scaler": Renamed("cpu")}])

    @property
    def scaler(self) -> Any:
        return self.agent.parts[0]["scaler"]


class LateScaler(OwnScaler):
    def make_scaler(self) -> None:
        pass

    def on_train_start(self) -> None:
        super().make_scaler()


def rows_of(
    fit: Any,
    module: Any,
    precision: Any = None,
    *,
    every: int = 1,
    settings: dict[str, Any] | None = None,
    **trainer: Any,
) -> MemoryTracker:
    tracker = MemoryTracker()
    cfg = {
        "gradient_logger": True,
        "gradients": {"log_freq": every, "log": "gradients"},
        "metrics": {"every_n_steps": every},
        "alerts": {"enabled": True},
        "on_error": "raise",
    }
    plugins = [] if precision is None else [precision]
    fit(module, WandbRLCallback({**cfg, **(settings or {})}, tracker=tracker), plugins=plugins, **trainer)
    return tracker


def half_precision(**options: Any) -> MixedPrecision:
    scaler: Any = torch.amp.GradScaler("cpu", **options)
    return MixedPrecision("16-mixed", "cpu", scaler=scaler)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [Half, WithHook, Manual, OwnScaler, NestedScaler, LateScaler])
def test_gradients_are_unscaled_and_skipped_steps_are_no_updates(fit: Any, kind: type[Half], fused: bool) -> None:
    module = kind(fused=fused)
    tracker = rows_of(fit, module, None if isinstance(module, OwnScaler) else half_precision())
    assert (module.bias / -LEARNING_RATE).tolist() == [9.0, 12.0]  # three steps
    assert [row["time/updates"] for row in tracker.by_update()] == [1, 2, 3]
    assert tracker.column("train/grad_norm") == tracker.column("grad_norm/total") == [5.0, 5.0, 5.0]
    assert tracker.column("train/grad_nonfinite") == [0, 0, 0]
    edges = [histogram.edges for histogram in tracker.column("gradients/q_network.2.bias")]
    assert [(each[0], each[-1]) for each in edges] == [(3.0, 4.0)] * 3
    assert tracker.column("train/amp_scale") == [SCALE] * 3
    assert tracker.column("train/amp_skipped_steps") == []
    assert tracker.alerts == []


def test_lightnings_wrapper_of_an_optimizer_can_be_scaled(fit: Any) -> None:
    module = OwnScaler()
    module.wrapped = True
    tracker = rows_of(fit, module)
    assert tracker.column("train/grad_norm") == tracker.column("grad_norm/total") == [5.0, 5.0, 5.0]
    assert [row["time/updates"] for row in tracker.by_update()] == [1, 2, 3]


def test_a_fused_optimizer_in_lightnings_wrapper_is_warned_of_as_it_steps_with_infinite_gradients(fit: Any) -> None:
    module = OwnScaler(fused=True)
    module.wrapped = True
    with pytest.warns(UserWarning, match=r"Pass self.optimizers\(use_pl_optimizer=False\) to GradScaler.step"):
        tracker = rows_of(fit, module)
    assert module.bias.tolist() == [-torch.inf, -torch.inf]
    assert tracker.alerts[0][1] == "train/grad_norm is inf (update 1)."


def test_gradients_are_those_before_clipping(fit: Any) -> None:
    tracker = rows_of(fit, Half(), half_precision(), gradient_clip_val=0.5)
    assert tracker.column("train/grad_norm") == tracker.column("grad_norm/total") == [5.0, 5.0, 5.0]


def test_accumulated_gradients_are_unscaled(fit: Any) -> None:
    for fused in (False, True):
        tracker = rows_of(fit, Half(4, fused=fused), half_precision(init_scale=64.0), accumulate_grad_batches=2)
        assert tracker.column("train/grad_norm") == tracker.column("grad_norm/total") == [5.0, 5.0]


def test_gradients_of_a_batch_without_a_step_are_unscaled(fit: Any) -> None:
    class Accumulates(OwnScaler):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.scaler.scale(self.loss(batch_idx)).backward()

        def make_scaler(self) -> None:
            self.own_scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            optimizer.step = lambda *_: None  # steps cannot be seen, so that every batch counts
            return optimizer

    assert rows_of(fit, Accumulates(3)).column("grad_norm/total") == [5.0, 10.0, 15.0]


@pytest.mark.parametrize("fused", [False, True])
def test_a_row_of_many_updates_does_not_hold_the_norm_of_a_skipped_step(fit: Any, fused: bool) -> None:
    class OverflowsAtTheEnd(Half):
        def loss(self, batch_idx: int) -> torch.Tensor:
            return super().loss(batch_idx) * (1e30 if batch_idx >= 3 else 1.0)

    tracker = rows_of(fit, OverflowsAtTheEnd(5, fused=fused), half_precision(init_scale=64.0), every=4)
    assert tracker.column("train/grad_norm") == []
    assert tracker.column("grad_norm/total") == []
    assert (tracker.column("time/updates")[-1], tracker.column("train/amp_scale")) == (3, [16.0])
    assert tracker.alerts == []


def test_the_scale_is_logged_as_it_grows(fit: Any) -> None:
    tracker = rows_of(fit, Half(3), half_precision(init_scale=2.0, growth_interval=1))
    assert tracker.column("train/amp_scale") == [4.0, 8.0, 16.0]


def test_no_scale_is_logged_where_losses_have_none(fit: Any) -> None:
    class Disabled(OwnScaler):
        def make_scaler(self) -> None:
            self.own_scaler = torch.amp.GradScaler("cpu", enabled=False)

    for module, precision in [(Half(), None), (Half(), MixedPrecision("bf16-mixed", "cpu")), (Disabled(), None)]:
        tracker = rows_of(fit, module, precision)
        assert len(tracker.column("train/grad_norm")) == 6
        assert tracker.column("train/amp_scale") == []


def test_several_scalers_have_names_and_each_optimizer_the_norm_of_its_own_steps(fit: Any) -> None:
    class Two(OwnScaler):
        def make_scaler(self) -> None:
            self.actor_scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
            self.critic_scaler = torch.amp.GradScaler("cpu")

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            actor, critic = self.optimizers(use_pl_optimizer=False)  # type: ignore[misc]  # a list of two
            self.actor_scaler.scale(12 * self.q_network[0].bias[0]).backward()
            self.critic_scaler.scale(self.loss(batch_idx)).backward()
            for scaler, optimizer in [(self.actor_scaler, actor), (self.critic_scaler, critic)]:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.q_network[i].parameters(), lr=LEARNING_RATE) for i in (0, 2)]

    tracker = rows_of(fit, Two())
    assert [row["time/updates"] for row in tracker.by_update()] == [1, 2, 3, 4, 5, 6]
    assert tracker.column("train/grad_norm") == [12.0] * SKIPPED + [13.0] * 3
    assert tracker.column("train/amp_scale") == tracker.column("train/amp_scale_actor_scaler") == [64.0] * 6
    assert tracker.column("train/amp_scale_critic_scaler") == [32768.0, 16384.0, *[SCALE] * 4]
    assert tracker.column("train/amp_skipped_steps") == [1, 2, 3]
    assert tracker.alerts == []


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_that_is_skipped_while_another_one_steps_has_no_norm(fit: Any, fused: bool) -> None:
    class Two(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            actor, critic = self.optimizers()  # type: ignore[misc]  # a list of two
            for optimizer, loss in [(actor, 12 * self.q_network[0].bias[0]), (critic, self.loss(batch_idx))]:
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()

        def configure_optimizers(self) -> Any:
            networks = [self.q_network[i].parameters() for i in (0, 2)]
            return [torch.optim.SGD(each, lr=LEARNING_RATE, fused=self.fused) for each in networks]

    tracker = rows_of(fit, Two(fused=fused), half_precision())
    assert [row["time/updates"] for row in tracker.by_update()] == [1, 2, 3, 4, 5, 6]
    assert tracker.column("train/grad_norm") == [12.0] * SKIPPED + [13.0] * 3
    assert tracker.column("train/amp_skipped_steps") == [1, 2, 3]


def test_norms_that_the_module_logs_of_skipped_steps_are_in_no_row(fit: Any) -> None:
    class LogsNorm(Half):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            if self.trainer.fit_loop.epoch_loop.batch_idx in (0, 4):
                self.log("grad_norm", self.bias.grad.norm())  # type: ignore[union-attr]  # it has a gradient

        def loss(self, batch_idx: int) -> torch.Tensor:
            return super().loss(batch_idx) * (1e30 if batch_idx == 5 else 1.0)

    tracker = rows_of(fit, LogsNorm(), half_precision())
    assert tracker.column("train/grad_norm") == [5.0, 5.0]
    assert (tracker.column("time/updates")[-1], tracker.alerts) == (2, [])


class NeverLearns(Half):
    """The derivative of the square root is infinite at zero, where its loss is finite."""

    def loss(self, batch_idx: int) -> torch.Tensor:
        return (self.bias * 0.0).sqrt().sum()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("batches", [9, 12])
def test_ten_skipped_steps_in_a_row_are_an_alert_and_a_row(fit: Any, batches: int, fused: bool) -> None:
    with pytest.warns(UserWarning, match=rf"GradScaler skipped all optimizer steps \({batches} in a row\)"):
        tracker = rows_of(fit, NeverLearns(batches, fused=fused), half_precision(), every=50)
    assert set(tracker.column("time/updates")) == {0}
    if batches < 10:
        assert tracker.alerts == []
        return
    ((title, text, _),) = tracker.alerts
    assert title == "Optimizer steps are skipped one after another"
    assert text.startswith(
        "GradScaler skipped 10 optimizer steps in a row, as gradients were NaN or infinite; its scale is now 64."
    )
    assert "set_detect_anomaly" in text
    assert "bf16-mixed" in text
    row = next(row for row in tracker.rows if "train/amp_skipped_steps" in row)
    assert (row["trainer/global_step"], row["train/amp_scale"], row["train/loss"]) == (9, 64.0, 0.0)
    assert "train/grad_norm" not in row


@pytest.mark.parametrize("kind", [Half, WithHook, Manual, OwnScaler])
def test_a_gpu_that_knows_of_skipped_steps_later_leaves_no_infinite_norm_and_the_right_count(
    fit: Any, kind: type[Half], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Overflow, "is_on_host", property(lambda _: False))
    module = kind(20, fused=True)
    tracker = rows_of(fit, module, None if isinstance(module, OwnScaler) else half_precision())
    updates = tracker.column("time/updates")
    assert updates == sorted(updates)
    assert updates[-1] == 20 - SKIPPED == round(module.bias[0].item() / (-3 * LEARNING_RATE))
    norms = tracker.column("train/grad_norm")
    assert norms == tracker.column("grad_norm/total") == [5.0] * len(norms)
    assert len(norms) == len(tracker.column("gradients/q_network.2.bias")) == 20 - 2 * SKIPPED
    assert tracker.alerts == []


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [Half, Manual])
@pytest.mark.parametrize(("factor", "shown"), [(float("nan"), "nan"), (float("inf"), "-inf")])
def test_a_loss_that_is_not_finite_is_an_alert_at_once(
    fit: Any, kind: type[Half], fused: bool, factor: float, shown: str
) -> None:
    class IsNotFinite(kind):  # type: ignore[misc, valid-type]  # a parameter of the test
        def loss(self, batch_idx: int) -> torch.Tensor:
            loss: torch.Tensor = super().loss(batch_idx) * (factor if batch_idx >= 4 else 1.0)
            self.log("loss", loss)
            return loss

    tracker = rows_of(fit, IsNotFinite(20, fused=fused), half_precision(), every=50)
    assert [text for _, text, _ in tracker.alerts] == [f"train/loss is {shown} (update 1)."]
    assert tracker.rows[0]["trainer/global_step"] == 4


def test_watched_gradients_are_unscaled(fit: Any) -> None:
    for kind, fused in [(Half, True), (OwnScaler, False)]:
        settings = {
            "gradients": {"method": "watch", "log_freq": 1, "log": "gradients"},
            "metrics": {"every_n_steps": 1},
        }
        callback = WandbRLCallback({**settings, "gradient_logger": True, "on_error": "raise"})
        own = kind is OwnScaler
        fit(kind(fused=fused), callback, plugins=[] if own else [half_precision()])
        assert callback.run_folder is not None
        run = read_offline_run(callback.run_folder)
        assert [value["bins"][0] for value in run.column("gradients/q_network.2.bias")][-3:] == [3.0] * 3
        assert [value["bins"][-1] for value in run.column("gradients/q_network.2.bias")][-3:] == [4.0] * 3


@pytest.mark.parametrize("kind", [Half, Manual, OwnScaler])
def test_training_is_the_same_with_the_callback(fit: Any, kind: type[Half]) -> None:
    states = []
    for is_logged in (False, True):
        torch.manual_seed(0)
        module = kind(fused=True)
        precision = None if isinstance(module, OwnScaler) else half_precision()
        if is_logged:
            rows_of(fit, module, precision)
        else:
            fit(module, plugins=[] if precision is None else [precision])
        scaler = module.scaler if isinstance(module, OwnScaler) else precision.scaler  # type: ignore[union-attr]  # set
        states.append((module.state_dict(), scaler.state_dict(), torch.random.get_rng_state().tolist()))
    (weights, *rest), (weights_with, *rest_with) = states
    assert rest == rest_with
    assert all(torch.equal(value, weights_with[name]) for name, value in weights.items())


def test_callbacks_can_be_copied_while_training_and_no_hooks_are_left(fit: Any) -> None:
    class Copies(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            copy.deepcopy(trainer.callbacks[0])
            pickle.dumps(trainer.callbacks[0])

    callback = WandbRLCallback({"on_error": "raise"}, tracker=MemoryTracker())
    trainer = fit(Half(), callback, Copies(), plugins=[half_precision()])
    assert not trainer.optimizers[0]._optimizer_step_post_hooks
