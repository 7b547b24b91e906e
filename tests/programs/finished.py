"""A training that stops once until the file ``go`` appears: ``finished.py (own | logger) ALERT FINISH_SECONDS``.

At the end it prints the time that the last hook took, and ``time.time()``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ


class Module(TinyValidatedQ):
    """Module whose q-values explode after the stop, which sends an alert."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 3:
            Path("reached").touch()
            while not Path("go").exists():
                time.sleep(0.02)
        values = torch.full((3,), 1000.0 ** max(0, batch_idx - 3))
        return {**super().training_step(batch, batch_idx), "q_values": values}


def main(owner: str, alert: str, finish_seconds: str) -> None:
    callback = WandbRLCallback(
        env=CorridorEnv,
        policy="q_network",
        finish_seconds=float(finish_seconds),
        metrics={"every_n_steps": 1},
        evaluation={"episodes": 2},
        alerts={"enabled": alert == "alert"},
        run={"project": "p"},
    )
    trainer = pl.Trainer(
        callbacks=[callback],
        logger=WandbLogger(project="p") if owner == "logger" else False,
        max_epochs=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(0)
    teardown = callback.teardown

    def timed(*arguments: Any, **keywords: Any) -> None:
        started = time.perf_counter()
        teardown(*arguments, **keywords)
        sys.stdout.write(f"waited {time.perf_counter() - started:.1f} s\n")

    callback.teardown = timed
    trainer.fit(Module())
    sys.stdout.write(f"ended at {time.time()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
