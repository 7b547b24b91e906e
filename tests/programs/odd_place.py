"""A training with videos, for processes that differ from a usual one."""

from __future__ import annotations

import warnings

import pytorch_lightning as pl

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ


def train() -> None:
    """Trains with videos that a worker makes."""
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    callback = WandbRLCallback(
        env=CorridorEnv, policy="q_network", metrics={"every_n_steps": 2}, record_path="vidéos 雪"
    )
    trainer = pl.Trainer(
        callbacks=[callback],
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(TinyValidatedQ())


if __name__ == "__main__":
    train()
