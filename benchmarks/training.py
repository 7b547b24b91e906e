"""Trains modules and takes the CPU time of a step."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from typing import Any

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
    """Takes the time from one batch on to the end of training, without start and end of the run.

    Args:
        warm_up: Batches before.
    """

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.started = CpuSeconds(0.0, 0.0)
        self.batches = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.warm_up:
            self.started = now()
        self.batches = batch_idx + 1 - self.warm_up

    def per_batch(self, ended: CpuSeconds) -> CpuSeconds:
        used = ended - self.started
        return CpuSeconds(used.process / self.batches, used.thread / self.batches)


def now() -> CpuSeconds:
    """CPU time used so far."""
    return CpuSeconds(time.process_time(), time.thread_time())


def cpu_seconds_per_step(module: pl.LightningModule, *callbacks: pl.Callback, warm_up: int = 5) -> CpuSeconds:
    """Trains one epoch with a WandbLogger; what callbacks do at the end of training is shared among the steps."""
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
        used = clock.per_batch(now())
        wandb.finish()
    return used
