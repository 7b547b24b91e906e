"""What logging five metrics adds to a training step."""

from __future__ import annotations

import statistics
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor

from benchmarks.lines import Line, Pair, whole
from benchmarks.training import Clock, train
from rlwandb_callbacks import MetricsCallback
from rlwandb_callbacks.testing import TinyQ

PERIOD, ROUNDS = 50, 100  # a row is logged every 50 steps
NAMES = ("entropy", "q_value", "target_q_value")


class Plain(TinyQ):
    """Computes the metrics and says nothing."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Returns them."""
        outputs = super().training_step(batch, batch_idx)
        values = outputs["q_values"]
        return {"loss": outputs["loss"], **dict.fromkeys(NAMES, values)}


class Logs(Plain):
    """Logs them by Lightning while it is told to."""

    logs = False

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Logs and returns them."""
        outputs = super().training_step(batch, batch_idx)
        if self.logs:
            self.log("train/loss", outputs["loss"])
            for name in NAMES:
                self.log(f"train/{name}", outputs[name].mean())
        return outputs


class Turns(Clock):
    """Lets two kinds of training take turns, 50 batches each: bare, and with what is measured.

    Args:
        callback: Is there in every other turn.
        logs: ``self.log`` is called in every other turn.
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
        """CPU seconds of all threads: the mean over the 50 batches, each with its median over all turns."""
        turns = range(kind, len(self.used) // PERIOD, 2)[1:]
        used = [[each.process for each in self.used[turn * PERIOD : (turn + 1) * PERIOD]] for turn in turns]
        return statistics.mean(statistics.median(batches) for batches in zip(*used, strict=True))


def added_per_step(callback: pl.Callback, *, logs: bool) -> float:
    """CPU seconds that a step costs more."""
    clock = Turns(callback, logs=logs)
    train(Logs(batches=2 * ROUNDS * PERIOD + 1), [clock, callback])
    return clock.per_step(1) - clock.per_step(0)


def compare(_: int) -> Pair:
    """CPU seconds added per step: ours, Lightning's own."""
    ours = added_per_step(MetricsCallback({"on_error": "raise"}), logs=False)
    return ours, added_per_step(LearningRateMonitor(), logs=True)


def run_ours() -> None:
    """Trains with our callback alone."""
    train(Plain(batches=ROUNDS * PERIOD), [MetricsCallback()])


NOTE = (
    "Both above a Trainer with a WandbLogger alone; with and without take turns in one training. Lightning itself "
    "spends some 8 µs a batch on a callback that does nothing; a row costs W&B's `log` call, shared among 50 steps."
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
        profile=whole(run_ours),
    )
]
