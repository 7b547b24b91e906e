"""What logging five metrics adds to a training step."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor

from benchmarks.lines import Line, Pair
from benchmarks.training import cpu_seconds_per_step
from rlwandb_callbacks import MetricsCallback
from rlwandb_callbacks.testing import TinyQ

BATCHES = 1_250
NAMES = ("entropy", "q_value", "target_q_value")


class Plain(TinyQ):
    """Computes the metrics and says nothing."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Returns them."""
        outputs = super().training_step(batch, batch_idx)
        values = outputs["q_values"]
        return {"loss": outputs["loss"], **dict.fromkeys(NAMES, values)}


class Logs(Plain):
    """Logs them by Lightning."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Logs and returns them."""
        outputs = super().training_step(batch, batch_idx)
        self.log("train/loss", outputs["loss"])
        for name in NAMES:
            self.log(f"train/{name}", outputs[name].mean())
        return outputs


PERIOD, WARM_UP = 50, 49  # a row is logged every 50 steps


def compare() -> Pair:
    """CPU seconds added per step: ours, Lightning's own."""
    bare = seconds_per_step(Plain)
    ours = seconds_per_step(Plain, MetricsCallback()) - bare
    theirs = seconds_per_step(Logs, LearningRateMonitor()) - bare
    return ours, theirs


def seconds_per_step(module: type[TinyQ], *callbacks: pl.Callback) -> float:
    """CPU seconds of all threads."""
    used = cpu_seconds_per_step(module(batches=BATCHES), *callbacks, warm_up=WARM_UP, period=PERIOD)
    return used.process


def run_ours() -> None:
    seconds_per_step(Plain, MetricsCallback())


LINES = [
    Line(
        "training step with metrics: loss, lr, entropy, q, target q, logged every 50 steps; CPU time added per step",
        "the same five by `self.log` and `LearningRateMonitor`",
        0.05,
        compare,
        ours_at_most=25e-6,
        pairs=5,
        note="Both above a Trainer with a WandbLogger alone. Lightning itself spends some 8 µs a batch on a callback "
        "that does nothing; a row costs W&B's `log` call, shared among 50 steps.",
        profile=run_ours,
    )
]
