"""Trains modules and measures the CPU time of their steps."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
import wandb
from pytorch_lightning.loggers import WandbLogger

# Longer than a tick of the system's clock, at which the CPU time of threads on other cores is updated.
POLL_SECONDS = 0.02
IDLE_CPU_SECONDS = 0.0003  # CPU time per poll below which the process counts as idle


@dataclass(frozen=True)
class CpuSeconds:
    """CPU time of a training step.

    Args:
        process: CPU time of all threads of this process, without W&B's own process.
        thread: CPU time of the training thread.
    """

    process: float
    thread: float

    def __sub__(self, other: CpuSeconds) -> CpuSeconds:
        return CpuSeconds(self.process - other.process, self.thread - other.thread)


class Clock(pl.Callback):
    """Callback that measures the CPU time of each batch and regularly waits until all other threads are idle.

    Args:
        every: Number of batches between two waits.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.used: list[CpuSeconds] = []
        self._started: CpuSeconds | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        ended = now()
        if batch_idx % self.every == 0:
            settle()
        if self._started is not None:
            process = time.process_time() - self._started.process
            self.used.append(CpuSeconds(process, ended.thread - self._started.thread))
        self._started = now()

    def at(self, batches: slice) -> CpuSeconds:
        """Returns the median over some of the batches."""
        used = self.used[batches]
        return CpuSeconds(
            statistics.median(each.process for each in used), statistics.median(each.thread for each in used)
        )


def now() -> CpuSeconds:
    """Returns the CPU time used so far."""
    return CpuSeconds(time.process_time(), time.thread_time())


def settle() -> None:
    """Waits until this process is idle."""
    used = time.process_time()
    while True:
        time.sleep(POLL_SECONDS)
        before, used = used, time.process_time()
        if used - before < IDLE_CPU_SECONDS:
            return


def train(module: pl.LightningModule, callbacks: list[pl.Callback]) -> None:
    """Trains one epoch with a WandbLogger that logs every 50 batches."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        settings = wandb.Settings(silent=True, x_disable_stats=True, x_disable_meta=True)
        logger = WandbLogger(save_dir=folder, offline=True, settings=settings)
        pl.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=callbacks, logger=logger, log_every_n_steps=50, **quiet
        ).fit(module)
        wandb.finish()
