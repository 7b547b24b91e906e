"""A training with a fixed run id that kills itself in its first start, and is resumed in the second one.

It saves a checkpoint after each batch, and writes its rows at once.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ

KILLED_AFTER_BATCHES = 5
SECONDS_TO_FLUSH = 3.0 if os.environ.get("WANDB_MODE") == "offline" else 5.0


class Kills(pl.Callback):
    """Callback that ends the process as a machine does that is taken away."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == KILLED_AFTER_BATCHES:
            time.sleep(SECONDS_TO_FLUSH)
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    is_resumed = Path("saved/last.ckpt").exists()
    callback = WandbRLCallback(
        env=CorridorEnv,
        policy="q_network",
        metrics={"every_n_steps": 1},
        evaluation={"episodes": 2, "every_n_steps": 2},
        executor="inline",
        video_logger=False,
        run={"id": "taken1", "project": "p", "resume": "allow"},
    )
    checkpoint = ModelCheckpoint("saved", every_n_train_steps=1, save_last=True)
    trainer = pl.Trainer(
        callbacks=[callback, checkpoint, *([] if is_resumed else [Kills()])],
        max_epochs=1,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(TinyValidatedQ(), ckpt_path="saved/last.ckpt" if is_resumed else None)
