"""Time that an evaluation blocks training while a worker draws its videos."""

from __future__ import annotations

import cProfile
import logging
import tempfile
import time
from functools import cache
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from benchmarks.lines import Line, Pair
from benchmarks.videos import QUIET, RECORD, Balancing, record, seconds, settings_for
from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.testing import MemoryTracker

EVALUATIONS = 2


class MinimalTraining(Balancing):
    """Module whose training costs almost nothing, so that evaluations dominate."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Returns the squared output of one linear layer."""
        loss: torch.Tensor = self.layer(batch.float()[:, None]).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns one batch per epoch."""
        return DataLoader([0])  # type: ignore[arg-type]  # torch takes any sequence


class TimedEvaluation(EvaluationCallback):
    """Evaluation callback that measures how long each evaluation blocks the training thread."""

    def __init__(self, *arguments: Any, profiler: cProfile.Profile | None = None, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.blocked_seconds: list[float] = []
        self._profiler = profiler

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluates and records the wall time."""
        started = time.perf_counter()
        if self._profiler is None or self.blocked_seconds:
            super().on_validation_end(trainer, pl_module)
        else:
            self._profiler.runcall(super().on_validation_end, trainer, pl_module)
        self.blocked_seconds.append(time.perf_counter() - started)


def train_with_worker(profiler: cProfile.Profile | None = None) -> list[float]:
    """Trains with two evaluations and waits for the worker at the end.

    Args:
        profiler: Profiler of the first evaluation.

    Returns:
        Wall seconds that each evaluation blocked training.
    """
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        tracker = MemoryTracker()
        callback = TimedEvaluation(settings_for(folder, "process"), tracker=tracker, profiler=profiler)
        once = {"max_epochs": EVALUATIONS, "num_sanity_val_steps": 0, "enable_checkpointing": False}
        pl.Trainer(accelerator="cpu", callbacks=[callback], **once, **QUIET).fit(MinimalTraining())
        if len(tracker.column("video/best")) != EVALUATIONS:
            raise RuntimeError("The worker made no videos, so there is nothing to compare.")
    return callback.blocked_seconds


@cache
def blocked_seconds(_: int) -> tuple[float, float, float]:
    """Returns the wall seconds of our first evaluation, our second, and RecordVideo."""
    first, second = train_with_worker()
    return first, second, seconds(record)


def compare_first(pair: int) -> Pair:
    """Compares our first evaluation with RecordVideo."""
    first, _, recorded = blocked_seconds(pair)
    return first, recorded


def compare_second(pair: int) -> Pair:
    """Compares our second evaluation with RecordVideo."""
    _, second, recorded = blocked_seconds(pair)
    return second, recorded


BLOCKED = "the same evaluation with its videos drawn by the worker: time that training is blocked"
LINES = [
    Line(
        f"{BLOCKED}, first evaluation",
        RECORD,
        0.05,
        compare_first,
        note="Wall time of the callback's hook in a fit. The first evaluation also checks, without rendering, that "
        "episodes can be replayed, and starts the worker. The wait for the worker after the last batch is not "
        "included. The second evaluation runs while the worker draws the first.",
        profile=train_with_worker,
    ),
    Line(f"{BLOCKED}, second evaluation", RECORD, 0.05, compare_second),
]
