"""Gradient and parameter histograms."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import wandb
from failing_modules import RaisesInTraining
from pytorch_lightning.plugins.precision import MixedPrecision

from rlwandb_callbacks import ConfigError, GradientsCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, OfflineRun, TinyActorCritic, TinyQ, read_offline_run

both_methods = pytest.mark.parametrize("method", ["fused", "watch"])


def logged(fit: Any, module: Any, options: dict[str, Any] | None = None, **trainer_options: Any) -> OfflineRun:
    gradients = {"log_freq": 2, **(options or {})}
    fit(module, GradientsCallback({"on_error": "raise", "gradients": gradients}), **trainer_options)
    return read_offline_run("wandb")


def rows_of(fit: Any, module: Any, options: dict[str, Any] | None = None, **trainer_options: Any) -> MemoryTracker:
    tracker = MemoryTracker()
    gradients = {"log_freq": 1, "log": "gradients", **(options or {})}
    fit(module, GradientsCallback({"on_error": "raise", "gradients": gradients}, tracker=tracker), **trainer_options)
    return tracker


def keys_below(run: OfflineRun, group: str) -> set[str]:
    return {key.removeprefix(group) for row in run.history for key in row if key.startswith(group)}


TRAINED = {"q_network.0.weight", "q_network.0.bias", "q_network.2.weight", "q_network.2.bias"}


@both_methods
def test_trained_parameters_have_histograms_although_forward_is_never_called(fit: Any, method: str) -> None:
    run = logged(fit, TinyQ(batches=8), {"method": method})
    assert keys_below(run, "gradients/") == TRAINED
    assert keys_below(run, "parameters/") == TRAINED
    counts = [sum(value["values"]) for value in run.column("gradients/q_network.0.weight")]
    assert counts == [16, 16, 16, 16]
    assert [row["trainer/global_step"] for row in run.history if "gradients/q_network.0.weight" in row] == [1, 3, 5, 7]


class Known(TinyQ):
    """The gradient of one bias is the number of the batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": (self.q_network[2].bias * float(batch_idx + 1)).sum()}


@both_methods
def test_a_gradient_histogram_belongs_to_the_batch_of_its_row(fit: Any, method: str) -> None:
    run = logged(fit, Known(batches=4), {"log": "gradients", "method": method})
    assert [value["bins"] for value in run.column("gradients/q_network.2.bias")] == [[2.0, 2.0], [4.0, 4.0]]
    assert not keys_below(run, "parameters/")


@both_methods
def test_a_parameter_histogram_has_all_elements_from_smallest_to_largest(fit: Any, method: str) -> None:
    module = TinyQ(batches=2)
    run = logged(fit, module, {"log": "parameters", "method": method})
    weight = module.q_network[0].weight.detach()
    (value,) = run.column("parameters/q_network.0.weight")
    assert sum(value["values"]) == weight.numel()
    assert value["bins"][0] == pytest.approx(float(weight.min()))
    assert value["bins"][-1] == pytest.approx(float(weight.max()))
    assert not keys_below(run, "gradients/")
    assert not keys_below(run, "grad_norm/")


@both_methods
def test_both_networks_have_histograms_under_manual_optimization(fit: Any, method: str) -> None:
    run = logged(fit, TinyActorCritic(batches=4), {"method": method})
    assert {name.split(".")[0] for name in keys_below(run, "gradients/")} == {"actor", "critic"}


@both_methods
def test_keys_are_the_same_in_a_second_run_and_for_compiled_networks(fit: Any, method: str) -> None:
    logged(fit, TinyQ(batches=2), {"method": method})
    module = TinyQ(batches=2)
    module.q_network = torch.compile(module.q_network, backend="eager")  # type: ignore[assignment]  # a compiled module
    run = logged(fit, module, {"method": method})
    assert keys_below(run, "gradients/") == keys_below(run, "parameters/") == TRAINED


@both_methods
def test_the_graph_is_logged_once(fit: Any, method: str) -> None:
    run = logged(fit, TinyQ(batches=2), {"log_graph": True, "method": method})
    assert run.summary["graph_0"]["_type"] == "graph-file"


@both_methods
def test_nan_gradients_are_not_an_error(fit: Any, method: str) -> None:
    class NaN(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": self.q_network(batch[0]).mean() * float("nan")}

    assert logged(fit, NaN(batches=4), {"method": method}).exit_code == 0


@pytest.mark.parametrize("method", ["watch"])
def test_wandb_watch_by_the_user_stays_and_does_not_end_training(fit: Any, method: str) -> None:
    module = TinyQ(batches=2)
    run = wandb.init()
    run.watch(module, log="gradients", log_freq=1, idx=0)
    with pytest.warns(UserWarning, match="Watching gradients failed"):
        fit(module, GradientsCallback({"gradients": {"log_freq": 2, "method": method}}))
    run.log({"mine/x": 1})
    run.unwatch(module)
    run.finish()
    assert (
        "gradients/q_network.0.weight" in read_offline_run("wandb").history[-1] | read_offline_run("wandb").history[0]
    )


def test_wandb_watch_by_the_user_works_beside_fused_gradients(fit: Any) -> None:
    module = TinyQ(batches=4)
    run = wandb.init()
    run.watch(module, log="gradients", log_freq=1, idx=0)
    fit(module, GradientsCallback({"gradients": {"log_freq": 2}, "on_error": "raise"}))
    assert module.q_network[0].weight._backward_hooks
    run.unwatch(module)
    run.finish()
    assert len(read_offline_run("wandb").column("grad_norm/total")) == 2


# Equal to wandb.watch


class Convolutional(TinyQ):
    """Layers of several kinds, with tied, sparse and frozen parameters."""

    def __init__(self, batches: int = 6) -> None:
        super().__init__(batches)
        generator = torch.Generator().manual_seed(5)
        self.embedding = torch.nn.Embedding(11, 8, sparse=True)
        self.body = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.BatchNorm1d(4), torch.nn.Flatten())
        self.head = torch.nn.Linear(24, 300)
        self.frozen = torch.nn.Linear(300, 300).requires_grad_(False)
        self.same_head = self.head
        self.log_alpha = torch.nn.Parameter(torch.zeros(()))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        rows = torch.tensor([batch_idx % 11, 3, 3])
        hidden = self.head(self.body(self.embedding(rows)[:, None]))
        return {"loss": (self.frozen(hidden).square().mean() + self.log_alpha.exp() * hidden.mean())}

    def configure_optimizers(self) -> Any:
        trained = [p for name, p in self.named_parameters() if not name.startswith(("q_network", "target"))]
        return torch.optim.SGD(trained, lr=0.01)


class Watching(GradientsCallback):
    """Calls ``wandb.watch`` on the whole module."""

    def _start_watching(self, trainer: Any, pl_module: Any, *, gradients: bool) -> None:
        self.session.run.watch(pl_module, log="gradients", log_freq=self.cfg.gradients.log_freq, idx=0)

    def finish(self, trainer: Any, pl_module: Any) -> None:
        self.session.run.unwatch(pl_module)


def test_keys_bins_and_steps_equal_those_of_wandb_watch(fit: Any) -> None:
    def histograms(kind: type[GradientsCallback], method: str) -> list[dict[str, Any]]:
        gradients = {"log": "gradients", "log_freq": 2, "method": method}
        fit(Convolutional(), kind({"on_error": "raise", "gradients": gradients}))
        wandb.teardown()
        kept = ("gradients/", "trainer/global_step")
        history = read_offline_run("wandb").history
        return [{key: value for key, value in row.items() if key.startswith(kept)} for row in history]

    fused, watched = histograms(GradientsCallback, "fused"), histograms(Watching, "watch")
    assert {key for row in watched for key in row} > {"gradients/embedding.weight", "gradients/log_alpha"}
    assert "gradients/frozen.weight" not in fused[0]
    assert [row["trainer/global_step"] for row in fused] == [1, 3, 5]
    assert fused == watched


def test_parameter_histograms_equal_those_of_wandb_watch(fit: Any) -> None:
    module = TinyQ(batches=2)
    fused = logged(fit, module, {"log": "parameters"}).history[0]
    run = wandb.init()
    run.watch(module.q_network, log="parameters", log_freq=1, idx=0)
    module.q_network(torch.zeros(1, 2))
    run.log({"done": 1})
    run.unwatch(module.q_network)
    run.finish()
    row = read_offline_run(Path(run.dir).parent).history[0]
    watched = {f"parameters/q_network.{name}": row[f"parameters/{name}"] for name in module.q_network.state_dict()}
    assert watched.keys() == {f"parameters/{name}" for name in TRAINED}
    assert {key: fused[key] for key in watched} == watched


# The fused method only


def bins_of(tracker: MemoryTracker, name: str) -> list[list[float]]:
    return [sorted(set(histogram.edges.tolist())) for histogram in tracker.column(f"gradients/{name}")]


def test_gradients_are_accumulated_and_not_yet_clipped(fit: Any) -> None:
    tracker = rows_of(fit, Known(batches=4), accumulate_grad_batches=2, gradient_clip_val=0.01)
    assert bins_of(tracker, "q_network.2.bias") == [[1.5], [3.5]]  # the mean of the batches
    assert [row["time/updates"] for row in tracker.rows] == [1, 2]


def test_gradients_are_unscaled_under_mixed_precision(fit: Any) -> None:
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=1024.0)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    tracker = rows_of(fit, Known(batches=2), plugins=[precision])
    assert bins_of(tracker, "q_network.2.bias") == [[1.0], [2.0]]


def test_the_last_of_several_updates_in_a_batch_is_logged(fit: Any) -> None:
    class ManySteps(TinyQ):
        def __init__(self) -> None:
            super().__init__(batches=2)
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer: Any = self.optimizers()
            for factor in (1.0, 2.0, 3.0):
                optimizer.zero_grad()
                self.manual_backward((self.q_network[2].bias * factor).sum())
                optimizer.step()

    assert bins_of(rows_of(fit, ManySteps()), "q_network.2.bias") == [[3.0], [3.0]]


class Delayed(TinyActorCritic):
    """Steps the actor in every second batch, never in one whose row is due."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        actor, critic = self.optimizers()  # type: ignore[misc, union-attr]  # a list of two
        for optimizer, network in ((critic, self.critic), (actor, self.actor))[: 2 - batch_idx % 2]:
            optimizer.zero_grad()
            self.manual_backward(network(batch[0][:, :1]).square().mean() * (batch_idx + 1))
            optimizer.step()


@both_methods
def test_an_actor_that_steps_between_rows_is_logged(fit: Any, method: str) -> None:
    run = logged(fit, Delayed(batches=8), {"method": method, "log_freq": 4})
    assert {name.split(".")[0] for name in keys_below(run, "gradients/")} == {"actor", "critic"}


def test_an_optimizer_that_is_missing_in_a_row_has_one_at_its_next_step(fit: Any) -> None:
    tracker = rows_of(fit, Delayed(batches=9), {"log_freq": 4})
    steps = {
        key: [row["time/updates"] for row in tracker.rows if key in row]
        for key in ("gradients/critic.0.weight", "gradients/actor.weight", "grad_norm/actor", "grad_norm/total")
    }
    assert list(steps.values()) == [[4, 8], [5, 9], [5, 9], [4, 8]]


def test_optimizers_without_lightnings_wrapper_are_logged(fit: Any) -> None:
    class Raw(TinyActorCritic):
        def optimizers(self, use_pl_optimizer: bool = True) -> Any:
            return super().optimizers(use_pl_optimizer=False)

    tracker = rows_of(fit, Raw(batches=3))
    assert len(tracker.column("gradients/actor.weight")) == len(tracker.column("gradients/critic.2.bias")) == 3


def test_parameters_appear_when_they_are_unfrozen(fit: Any) -> None:
    class Unfreezes(Known):
        def __init__(self) -> None:
            super().__init__(batches=4)
            self.q_network[2].bias.requires_grad_(False)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.q_network[2].bias.requires_grad_(batch_idx >= 2)
            return {"loss": self.q_network[2].weight.sum() + super().training_step(batch, batch_idx)["loss"]}

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.q_network.parameters(), lr=0.1)

    tracker = rows_of(fit, Unfreezes())
    assert [row["time/updates"] for row in tracker.rows if "gradients/q_network.2.bias" in row] == [3, 4]
    assert len(tracker.column("gradients/q_network.2.weight")) == 4


def test_norms_per_module_and_in_total_and_nonfinite_elements_are_logged(fit: Any) -> None:
    class Nonfinite(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            factors = torch.tensor([1.0, float("nan" if batch_idx else 2.0)])
            return {"loss": (self.q_network[2].bias * factors).sum() + 2 * self.q_network[0].bias[0]}

    tracker = rows_of(fit, Nonfinite(batches=2))
    first = {key: value for key, value in tracker.rows[0].items() if key.startswith("grad_norm/")}
    assert first == {
        "grad_norm/q_network.0": 2.0,
        "grad_norm/q_network.2": pytest.approx(5**0.5),
        "grad_norm/total": pytest.approx(3.0),
    }
    assert tracker.column("train/grad_nonfinite") == [0, 1]
    assert tracker.column("gradients/q_network.2.bias")[1].counts.tolist() == [1]


def test_a_sample_has_fewer_elements_and_the_same_keys(fit: Any) -> None:
    module = TinyQ(batches=2)
    whole, part = rows_of(fit, copy.deepcopy(module)), rows_of(fit, module, {"sample": 5})
    assert [row.keys() for row in whole.rows] == [row.keys() for row in part.rows]
    assert [histogram.counts.sum() <= 5 for histogram in part.column("gradients/q_network.0.weight")] == [True, True]
    assert part.column("grad_norm/total") == whole.column("grad_norm/total")


class SlowTracker(MemoryTracker):
    """Writes slowly, or fails to write gradients."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.threads: set[int] = set()

    def write(self, axes: Any, values: Any) -> None:
        if self.fails and "grad_norm/total" in values:
            raise OSError("disk full")
        self.threads.add(threading.get_ident())
        time.sleep(0.02)
        super().write(axes, values)


def test_all_rows_are_written_in_order_by_a_slow_tracker(fit: Any) -> None:
    tracker = SlowTracker()
    fit(TinyQ(batches=20), GradientsCallback({"gradients": {"log_freq": 1}, "on_error": "raise"}, tracker=tracker))
    assert [row["time/updates"] for row in tracker.rows] == list(range(1, 21))
    assert threading.get_ident() not in tracker.threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rlwandb-gradients")]


def test_rows_before_an_exception_are_written(fit: Any) -> None:
    tracker = SlowTracker()
    with pytest.raises(RuntimeError, match="boom"):
        fit(RaisesInTraining(batch_idx=5), GradientsCallback({"gradients": {"log_freq": 1}}, tracker=tracker))
    assert [row["time/updates"] for row in tracker.rows] == [1, 2, 3, 4, 5]


def test_a_tracker_that_fails_warns_once_and_training_continues(fit: Any) -> None:
    tracker = SlowTracker(fails=True)
    with pytest.warns(UserWarning, match="Writing a row failed.*disk full") as warnings:
        trainer = fit(TinyQ(batches=6), GradientsCallback({"gradients": {"log_freq": 1}}, tracker=tracker))
    assert trainer.global_step == 6
    assert len([warning for warning in warnings if "disk full" in str(warning.message)]) == 1
    with pytest.raises(OSError, match="disk full"):
        fit(
            TinyQ(),
            GradientsCallback({"gradients": {"log_freq": 1}, "on_error": "raise"}, tracker=SlowTracker(fails=True)),
        )


def test_a_sample_is_rejected_for_wandb_watch() -> None:
    with pytest.raises(ConfigError, match=r"gradients.sample is 10; it must be null if gradients.method is 'watch'"):
        GradientsCallback({"gradients": {"method": "watch", "sample": 10}})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sample", [None, 8])
def test_training_on_a_gpu_is_not_synchronized(fit: Any, sample: int | None) -> None:
    class Strict(TinyQ):
        def on_train_batch_start(self, *_: Any) -> None:
            torch.cuda.set_sync_debug_mode("default")

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            outputs = super().training_step(batch, batch_idx)
            torch.cuda.set_sync_debug_mode("error")
            return outputs

        def on_train_batch_end(self, *_: Any) -> None:
            torch.cuda.set_sync_debug_mode("default")

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.q_network.parameters(), lr=0.1)

    try:
        tracker = rows_of(fit, Strict(), {"log_freq": 4, "log": "all", "sample": sample}, accelerator="gpu", devices=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [row["time/updates"] for row in tracker.rows if "gradients/q_network.0.weight" in row] == [4, 8]


class StopsAfter(pl.Callback):
    """Saves a checkpoint within an epoch and stops there."""

    def __init__(self, batches: int) -> None:
        self._batches = batches

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == self._batches:
            trainer.save_checkpoint("middle.ckpt")
            raise InterruptedError


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("stops_after", [3, 4, 6])
def test_a_training_resumed_within_an_epoch_has_the_rows_of_one_without_a_stop(fit: Any, stops_after: int) -> None:
    settings = {
        "on_error": "raise",
        "gradient_logger": True,
        "gradients": {"log_freq": 2},
        "metrics": {"every_n_steps": 2},
        "executor": "inline",
        "evaluation": {"env": CorridorEnv, "policy": "q_network", "episodes": 1, "every_n_steps": 3},
    }

    def rows(*others: Any, ckpt_path: str | None = None) -> set[tuple[Any, ...]]:
        tracker, options = MemoryTracker(), {"max_epochs": 2, "accumulate_grad_batches": 2}
        with contextlib.suppress(InterruptedError):
            callback = WandbRLCallback(settings, tracker=tracker)
            trainer = fit(TinyQ(batches=9), callback, *others, ckpt_path=ckpt_path, **options)
            if trainer.global_step > 10:
                pytest.skip("this Lightning trains the batch again after which it was stopped")
        marks = {"train/loss", "eval/return_mean", "grad_norm/total"}
        return {
            (row["trainer/global_step"], row["time/updates"], mark)
            for row in tracker.rows
            for mark in marks & row.keys()
        }

    whole, before = rows(), rows(StopsAfter(stops_after))
    after = rows(ckpt_path="middle.ckpt")
    assert {update for _, update, mark in whole if mark == "grad_norm/total"} == {2, 4, 6, 8, 10}
    assert {update for _, update, mark in whole if mark == "eval/return_mean"} == {3, 6, 9, 10}
    assert after <= whole
    assert {row for row in whole if row[1] > stops_after // 2} <= after
    assert {row for row in whole if row[1] <= stops_after // 2} <= before


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_rows_are_complete_in_every_precision(fit: Any, precision: Any) -> None:
    class Half(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            time.sleep(0.02)  # the thread works while the default dtype is that of the module
            return {"loss": (self.q_network[0].weight.reshape(-1) * torch.arange(16) * 2.0**-5).sum()}

    tracker = rows_of(fit, Half(batches=6), precision=precision)
    histograms = tracker.column("gradients/q_network.0.weight")
    assert [histogram.edges.tolist() for histogram in histograms] == [
        torch.linspace(0, 15 / 32, 65, dtype=torch.float32).tolist()
    ] * 6
    assert tracker.column("grad_norm/total") == pytest.approx([1240**0.5 / 32] * 6, rel=1e-4)
