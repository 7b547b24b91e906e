"""A training whose videos take minutes, which sends itself SIGTERM: ``terminated.py (batch | end)``.

It writes ``time.time()`` at the signal.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import OnExceptionCheckpoint

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ


class SlowRender(CorridorEnv):
    """Environment whose pictures take minutes."""

    def render(self) -> Any:
        time.sleep(100)
        return super().render()


def terminate() -> None:
    """Sends SIGTERM to this process."""
    sys.stdout.write(f"signal at {time.time()}\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGTERM)


class Terminates(pl.Callback):
    """Callback that sends the signal after the last batch but one, or while the end of the training waits."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if sys.argv[1] == "batch" and batch_idx == 6:
            terminate()

    def teardown(self, *_: Any, **__: Any) -> None:
        if sys.argv[1] == "end":
            threading.Timer(1.0, terminate).start()


if __name__ == "__main__":
    callback = WandbRLCallback(env=SlowRender, policy="q_network", metrics={"every_n_steps": 1})
    trainer = pl.Trainer(
        callbacks=[Terminates(), callback, OnExceptionCheckpoint("saved")],
        val_check_interval=4,
        max_epochs=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(TinyValidatedQ())
