"""How long an evaluation holds training up while a worker draws its videos."""

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


class Training(Balancing):
    """Trains next to nothing, so that evaluations are all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """One number in, one out."""
        loss: torch.Tensor = self.layer(batch.float()[:, None]).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self) -> DataLoader[Any]:
        """One batch an epoch."""
        return DataLoader([0])  # type: ignore[arg-type]  # torch takes any sequence


class TimedEvaluation(EvaluationCallback):
    """Notes how long each evaluation takes of the training thread."""

    def __init__(self, *arguments: Any, profiler: cProfile.Profile | None = None, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.held_up_seconds: list[float] = []
        self._profiler = profiler

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluates."""
        started = time.perf_counter()
        if self._profiler is None or self.held_up_seconds:
            super().on_validation_end(trainer, pl_module)
        else:
            self._profiler.runcall(super().on_validation_end, trainer, pl_module)
        self.held_up_seconds.append(time.perf_counter() - started)


def train_with_worker(profiler: cProfile.Profile | None = None) -> list[float]:
    """Trains with two evaluations, and waits for the worker at the end.

    Args:
        profiler: Of the first evaluation.

    Returns:
        Wall seconds that the evaluations held training up.
    """
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        tracker = MemoryTracker()
        callback = TimedEvaluation(settings_for(folder, "process"), tracker=tracker, profiler=profiler)
        once = {"max_epochs": EVALUATIONS, "num_sanity_val_steps": 0, "enable_checkpointing": False}
        pl.Trainer(accelerator="cpu", callbacks=[callback], **once, **QUIET).fit(Training())
        if len(tracker.column("video/best")) != EVALUATIONS:
            raise RuntimeError("The worker made no videos, so that there is nothing to compare.")
    return callback.held_up_seconds


@cache
def held_up(_: int) -> tuple[float, float, float]:
    """Wall seconds: our first evaluation, our second, RecordVideo."""
    first, second = train_with_worker()
    return first, second, seconds(record)


def compare_first(pair: int) -> Pair:
    """Our first evaluation and RecordVideo."""
    first, _, recorded = held_up(pair)
    return first, recorded


def compare_second(pair: int) -> Pair:
    """Our second evaluation and RecordVideo."""
    _, second, recorded = held_up(pair)
    return second, recorded


HELD_UP = "the same evaluation with its videos drawn by the worker: time that training stands still"
LINES = [
    Line(
        f"{HELD_UP}, first evaluation",
        RECORD,
        0.05,
        compare_first,
        note="Wall time of the callback's hook in a fit. The first evaluation also proves, without pictures, that "
        "episodes can be played again, and starts the worker; the wait for the worker after the last batch is not "
        "training. The second takes place while the worker draws the first.",
        profile=train_with_worker,
    ),
    Line(f"{HELD_UP}, second evaluation", RECORD, 0.05, compare_second),
]
