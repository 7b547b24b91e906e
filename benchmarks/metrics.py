"""What logging five metrics adds to a training step."""

from __future__ import annotations

import logging
import tempfile
import time
from typing import Any

import pytorch_lightning as pl
import torch
import wandb
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import WandbLogger

from rlwandb_callbacks import MetricsCallback
from rlwandb_callbacks.testing import TinyQ

BATCHES = 1_500
NAMES = ("entropy", "q_value", "target_q_value", "td_error")


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


def compare() -> tuple[float, float]:
    """CPU seconds added per step: ours, Lightning's own."""
    bare = cpu_seconds_per_step(Plain(batches=BATCHES))
    ours = cpu_seconds_per_step(Plain(batches=BATCHES), MetricsCallback())
    theirs = cpu_seconds_per_step(Logs(batches=BATCHES), LearningRateMonitor())
    return ours - bare, theirs - bare


def cpu_seconds_per_step(module: pl.LightningModule, *callbacks: pl.Callback) -> float:
    """Trains with a WandbLogger and takes the process's CPU time."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        logger = WandbLogger(save_dir=folder, settings=wandb.Settings(silent=True))
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=list(callbacks), logger=logger, **quiet)
        started = time.process_time()
        trainer.fit(module)
        used = time.process_time() - started
        wandb.finish()
    return used / BATCHES
