"""Metrics that a module logs per epoch: one row an epoch, at its last step."""

from __future__ import annotations

from typing import Any

import pytest
import wandb
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import WandbLogger

from rlwandb_callbacks import MetricsCallback
from rlwandb_callbacks.testing import MemoryTracker, TinyActorCritic, TinyQ, TinyValidatedQ, read_offline_run

BATCHES = 4
AXES = ("trainer/global_step", "time/updates", "time/env_steps")


class LogsPerEpoch(TinyValidatedQ):
    """Logs 0, 1, 2, 3 in the batches of the first epoch, 10, 11, … in those of the second, and so on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(batches=BATCHES)
        self.options = {"on_step": False, "on_epoch": True, **options}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        outputs = super().training_step(batch, batch_idx)
        self.log("entropy", float(10 * self.current_epoch + batch_idx), **self.options)
        return outputs["loss"]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("entropy", -1.0)


def rows_of(fit: Any, module: Any, *others: Any, key: str = "train/entropy", **options: Any) -> list[tuple[Any, ...]]:
    """Trains with the callback and returns update and value of each row with a key."""
    interval = {"every_n_steps": options.pop("every_n_steps", None)}
    tracker = MemoryTracker()
    fit(module, MetricsCallback({"on_error": "raise", "metrics": interval}, tracker=tracker), *others, **options)
    return rows_in(tracker, key)


def rows_in(tracker: MemoryTracker, key: str = "train/entropy") -> list[tuple[Any, ...]]:
    """Returns update and value of each row with a key."""
    return [(row["time/updates"], row[key]) for row in tracker.rows if key in row]


@pytest.mark.parametrize("every_n_steps", [1, 3, None])
def test_a_mean_over_an_epoch_is_one_row_at_the_last_step_of_that_epoch(fit: Any, every_n_steps: int | None) -> None:
    rows = rows_of(fit, LogsPerEpoch(), max_epochs=3, every_n_steps=every_n_steps)
    assert rows == [(4, 1.5), (8, 11.5), (12, 21.5)]


def test_losses_that_only_the_epoch_has_under_manual_optimization(fit: Any) -> None:
    class LikePPOOfLightning(TinyActorCritic):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            outputs = super().training_step(batch, batch_idx)
            self.log("loss_actor", outputs["loss"] * 0 + batch_idx, on_step=False, on_epoch=True, prog_bar=True)
            self.log("loss_critic", outputs["loss"] * 0 + self.current_epoch, on_step=False, on_epoch=True)

    expected = [(2, 0.5), (4, 0.5)]
    assert rows_of(fit, LikePPOOfLightning(batches=2), key="train/actor_loss", max_epochs=2) == expected
    expected = [(2, 0.0), (4, 1.0)]
    assert rows_of(fit, LikePPOOfLightning(batches=2), key="train/critic_loss", max_epochs=2) == expected


def test_values_of_batches_and_the_mean_of_their_epoch_are_two_metrics(fit: Any) -> None:
    settings = {"max_epochs": 2, "every_n_steps": 2}
    batches = rows_of(fit, LogsPerEpoch(on_step=True), **settings)
    assert batches == [(2, 1.0), (4, 3.0), (6, 11.0), (8, 13.0)]
    means = rows_of(fit, LogsPerEpoch(on_step=True), key="train/entropy_epoch", **settings)
    assert means == [(4, 1.5), (8, 11.5)]


def test_the_mean_of_a_metric_that_training_step_also_returns_has_a_name_of_its_own(fit: Any) -> None:
    class Returns(LogsPerEpoch):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": super().training_step(batch, batch_idx), "entropy": 100.0 + batch_idx}

    assert rows_of(fit, Returns(), every_n_steps=2) == [(2, 101.0), (4, 103.0)]
    assert rows_of(fit, Returns(), key="train/entropy_epoch", every_n_steps=2) == [(4, 1.5)]


@pytest.mark.parametrize(("reduce_fx", "expected"), [("sum", 6.0), ("max", 3.0), ("min", 0.0)])
def test_other_reductions(fit: Any, reduce_fx: str, expected: float) -> None:
    assert rows_of(fit, LogsPerEpoch(reduce_fx=reduce_fx)) == [(4, expected)]


def test_what_is_logged_when_the_epoch_ends_belongs_to_that_epoch(fit: Any) -> None:
    class AtTheEnd(TinyQ):
        def on_train_epoch_end(self) -> None:
            self.log("epsilon", 0.5 + self.current_epoch)

    assert rows_of(fit, AtTheEnd(batches=2), key="train/epsilon", max_epochs=2) == [(2, 0.5), (4, 1.5)]


def test_a_metric_that_is_not_logged_in_an_epoch_has_no_row_there(fit: Any) -> None:
    class EveryOther(TinyQ):
        def on_train_epoch_end(self) -> None:
            if self.current_epoch % 2 == 0:
                self.log("epsilon", float(self.current_epoch))

    assert rows_of(fit, EveryOther(batches=2), key="train/epsilon", max_epochs=4) == [(2, 0.0), (6, 2.0)]


def test_a_value_of_a_batch_is_not_repeated_in_later_rows(fit: Any) -> None:
    class Sometimes(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx % 3 == 0:
                self.log("alpha", float(batch_idx))
            return super().training_step(batch, batch_idx)

    rows = rows_of(fit, Sometimes(batches=5), key="train/alpha", every_n_steps=1, max_epochs=2)
    assert rows == [(1, 0.0), (4, 3.0), (6, 0.0), (9, 3.0)]


def test_the_axes_of_the_row_are_those_of_the_last_batch(fit: Any) -> None:
    class CollectsBetweenEpochs(LogsPerEpoch):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("step", float(100 * (self.current_epoch * BATCHES + batch_idx)))
            return super().training_step(batch, batch_idx)

        def on_train_epoch_end(self) -> None:
            self.env_steps += 1_000

    tracker = MemoryTracker()
    fit(CollectsBetweenEpochs(), MetricsCallback(on_error="raise", tracker=tracker), max_epochs=2)
    rows = [[row[axis] for axis in AXES] for row in tracker.rows if "train/entropy" in row]
    assert rows == [[300.0, 4, 40], [700.0, 8, 1_080]]


def test_validation_within_an_epoch_changes_nothing(fit: Any) -> None:
    rows = rows_of(fit, LogsPerEpoch(), max_epochs=2, val_check_interval=2, every_n_steps=1)
    assert rows == [(4, 1.5), (8, 11.5)]


def test_an_epoch_that_ends_early_has_a_row(fit: Any) -> None:
    assert rows_of(fit, LogsPerEpoch(), max_steps=6, max_epochs=-1) == [(4, 1.5), (6, 10.5)]


def test_an_exception_keeps_the_rows_of_the_epochs_before(fit: Any) -> None:
    class Fails(LogsPerEpoch):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.current_epoch == 1 and batch_idx == 2:
                raise RuntimeError("out of memory")
            return super().training_step(batch, batch_idx)

    tracker = MemoryTracker()
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(Fails(), MetricsCallback(on_error="raise", tracker=tracker), max_epochs=2)
    assert [row["train/entropy"] for row in tracker.rows if "train/entropy" in row] == [1.5]


@pytest.mark.parametrize("where", ["training_step", "on_train_epoch_end"])
def test_a_mean_of_validation_is_not_taken_for_one_of_training_after_an_exception(fit: Any, where: str) -> None:
    class FailsAtTheEnd(LogsPerEpoch):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if where == "training_step":
                return super().training_step(batch, batch_idx)
            return TinyQ.training_step(self, batch, batch_idx)

        def on_train_epoch_end(self) -> None:
            if where == "on_train_epoch_end":
                self.log("entropy", 1.5)
            if self.current_epoch == 1:
                raise RuntimeError("out of memory")

    tracker = MemoryTracker()
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(FailsAtTheEnd(), MetricsCallback(on_error="raise", tracker=tracker), max_epochs=2)
    assert rows_in(tracker) == [(4, 1.5)]


@pytest.mark.filterwarnings("ignore:.*Logging metrics of an epoch")
def test_an_error_at_the_end_of_an_epoch_does_not_lose_its_row(fit: Any) -> None:
    class FailsAtTheEnd(MetricsCallback):
        """Other ranks wait for this one at the start of the next epoch, to exchange the metrics of this one."""

        fails = False

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.fails = True
            super().on_train_epoch_end(trainer, pl_module)
            self.fails = False

        def _pick_logged(self, trainer: Any, module: Any) -> dict[str, Any]:
            if self.fails:
                raise RuntimeError("unreadable")
            return super()._pick_logged(trainer, module)

    tracker = MemoryTracker()
    fit(LogsPerEpoch(), FailsAtTheEnd(metrics={"every_n_steps": 100}, tracker=tracker), max_epochs=2)
    assert rows_in(tracker) == [(4, 1.5), (8, 11.5)]


def test_the_metrics_of_lightning_are_the_same_with_and_without_the_callback(fit: Any) -> None:
    class Watches(Callback):
        def __init__(self) -> None:
            self.seen: list[dict[str, float]] = []

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            self.seen.append({key: float(value) for key, value in trainer.callback_metrics.items()})

        on_train_end = on_train_epoch_start

    class WithMetric(LogsPerEpoch):
        def on_train_epoch_end(self) -> None:
            self.log("late", float(self.current_epoch))

    with_callback, without = Watches(), Watches()
    rows_of(fit, WithMetric(on_step=True), with_callback, max_epochs=2)
    fit(WithMetric(on_step=True), without, max_epochs=2)
    assert with_callback.seen == without.seen


def test_a_key_that_lightning_writes_to_the_run_is_not_written_twice(fit: Any) -> None:
    class SameKey(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("train/entropy", float(batch_idx), on_step=False, on_epoch=True)
            self.log("alpha", float(batch_idx), on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)["loss"]

    fit(SameKey(batches=2), MetricsCallback(on_error="raise"), max_epochs=2, logger=WandbLogger())
    wandb.finish()
    history = read_offline_run("wandb").history
    for key in ("train/entropy", "train/alpha"):
        rows = [(row["trainer/global_step"], row[key]) for row in history if key in row]
        assert rows == [(1, 0.5), (3, 0.5)], key
