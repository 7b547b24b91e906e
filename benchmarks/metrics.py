"""Cost of logging five metrics, per training step."""

from __future__ import annotations

import statistics
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor

from benchmarks.lines import Line, Pair, profile_call
from benchmarks.training import Clock, train
from rlwandb_callbacks import MetricsCallback
from rlwandb_callbacks.testing import TinyQ

PERIOD, ROUNDS = 50, 100  # a row is logged every 50 steps
NAMES = ("entropy", "q_value", "target_q_value")


class Plain(TinyQ):
    """Module that computes the metrics and does not log them."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Returns the metrics."""
        outputs = super().training_step(batch, batch_idx)
        values = outputs["q_values"]
        return {"loss": outputs["loss"], **dict.fromkeys(NAMES, values)}


class SelfLogging(Plain):
    """Module that logs the metrics by ``self.log`` while ``logs`` is set."""

    logs = False

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Logs the metrics and returns them."""
        outputs = super().training_step(batch, batch_idx)
        if self.logs:
            self.log("train/loss", outputs["loss"])
            for name in NAMES:
                self.log(f"train/{name}", outputs[name].mean())
        return outputs


class AlternatingClock(Clock):
    """Clock that alternates, every 50 batches, between training without and with what is measured.

    Args:
        callback: Callback that is active in every other period.
        logs: Whether the module calls ``self.log`` in those periods.
    """

    def __init__(self, callback: pl.Callback, *, logs: bool) -> None:
        super().__init__(every=PERIOD)
        self.callback, self.logs = callback, logs

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % PERIOD == 0:
            is_bare = batch_idx // PERIOD % 2 == 0
            trainer.callbacks = [self] if is_bare else [self, self.callback]
            pl_module.logs = self.logs and not is_bare
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def per_step(self, kind: int) -> float:
        """Returns CPU seconds of all threads: the mean over the 50 batches of their medians over all periods.

        Args:
            kind: 0 for periods without what is measured, 1 for those with it.
        """
        periods = range(kind, len(self.used) // PERIOD, 2)[1:]
        used = [[each.process for each in self.used[period * PERIOD : (period + 1) * PERIOD]] for period in periods]
        return statistics.mean(statistics.median(batches) for batches in zip(*used, strict=True))


def added_per_step(callback: pl.Callback, *, logs: bool) -> float:
    """Returns the CPU seconds that a callback, or ``self.log``, adds to a step."""
    clock = AlternatingClock(callback, logs=logs)
    train(SelfLogging(batches=2 * ROUNDS * PERIOD + 1), [clock, callback])
    return clock.per_step(1) - clock.per_step(0)


def compare(_: int) -> Pair:
    """Compares the CPU seconds that our callback and Lightning's own logging add to a step."""
    ours = added_per_step(MetricsCallback({"on_error": "raise"}), logs=False)
    return ours, added_per_step(LearningRateMonitor(), logs=True)


def run_ours() -> None:
    """Trains with our callback only."""
    train(Plain(batches=ROUNDS * PERIOD), [MetricsCallback()])


NOTE = (
    "Both sides are costs on top of a Trainer with only a WandbLogger; periods with and without alternate in one "
    "training. Lightning itself spends about 8 µs a batch on a callback that does nothing; a row costs one `log` call "
    "of W&B, spread over 50 steps."
)
LINES = [
    Line(
        "training step with metrics: loss, lr, entropy, q, target q, logged every 50 steps; CPU time added per step",
        "the same five by `self.log` and `LearningRateMonitor`",
        0.05,
        compare,
        ours_at_most=25e-6,
        pairs=5,
        note=NOTE,
        profile=profile_call(run_ours),
    )
]
