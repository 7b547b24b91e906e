"""Trains modules and takes the CPU time of a step."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import wandb
from pytorch_lightning.loggers import WandbLogger


@dataclass(frozen=True)
class CpuSeconds:
    """CPU time of a training step.

    Args:
        process: Of all threads of this process. W&B's own process is not in it.
        thread: Of the thread that trains.
    """

    process: float
    thread: float

    def __sub__(self, other: CpuSeconds) -> CpuSeconds:
        return CpuSeconds(self.process - other.process, self.thread - other.thread)


class Clock(pl.Callback):
    """Takes the time at the beginning of each batch.

    Args:
        warm_up: Batches that do not count.
    """

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.begun: list[tuple[float, float]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.begun.append((time.process_time(), time.thread_time()))

    def per_batch(self, period: int) -> CpuSeconds:
        """The mean over a period of batches, each of which counts with its median over all periods.

        So that what happens every ``period`` batches counts, and what other programs do to a few of them does not.
        """
        used = np.diff(np.array(self.begun[self.warm_up :]), axis=0)
        used = used[: len(used) // period * period].reshape(-1, period, 2)
        process, thread = np.median(used, axis=0).mean(axis=0)
        return CpuSeconds(float(process), float(thread))


def cpu_seconds_per_step(module: pl.LightningModule, *callbacks: pl.Callback, warm_up: int, period: int) -> CpuSeconds:
    """Trains one epoch with a WandbLogger.

    Args:
        module: With one batch more than counts.
        callbacks: What is measured.
        warm_up: Batches that do not count.
        period: Every so many batches the same happens.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        settings = wandb.Settings(silent=True, x_disable_stats=True, x_disable_meta=True)
        logger = WandbLogger(save_dir=folder, offline=True, settings=settings)
        _ = logger.experiment
        clock = Clock(warm_up)
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[clock, *callbacks], logger=logger, log_every_n_steps=50, **quiet
        )
        trainer.fit(module)
        wandb.finish()
    return clock.per_batch(period)
