"""A training in whose middle its run breaks: ``broken_run.py (finished | killed | full) FOLDER``.

It prints the steps that EarlyStopping allows, the name of the checkpoint that ModelCheckpoint keeps, and the folder of
the run. ``full`` fills the disk on which FOLDER is. After ``killed`` a further training is printed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import wandb
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyQ


def kill_wandb_core() -> None:
    """Kills the background process of W&B, as the system does where memory is short."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"wandb-core" in (folder / "cmdline").read_bytes() and _parent(folder) == os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)


def _parent(folder: Path) -> int:
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def fill_disk(folder: str) -> None:
    """Writes to a file until there is no room."""
    with contextlib.suppress(OSError), Path(folder, "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


class Module(TinyQ):
    """Module without validation whose run breaks in its second epoch, and whose returns improve in the third one."""

    def __init__(self, break_run: Callable[[], None]) -> None:
        super().__init__(batches=8)
        self.break_run = break_run

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if (self.current_epoch, batch_idx) == (1, 4):
            self.break_run()
        return super().training_step(batch, batch_idx)

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        right = 1.0 if self.trainer.global_step >= 20 else -1.0
        return torch.tensor([[0.0, right]]).expand(len(observations), 2)


def train(break_run: Callable[[], None], folder: str) -> None:
    saved = ModelCheckpoint(f"saved_{Path(folder).name}", monitor="eval/return_mean", mode="max", filename="{step}")
    stopping = EarlyStopping("eval/return_mean", mode="max", patience=2)
    callback = WandbRLCallback(
        env=CorridorEnv,
        policy="policy",
        evaluation={"episodes": 2, "every_n_steps": 10_000, "max_steps": 6},
        videos={"select": ["best"]},
        metrics={"every_n_steps": 2},
        record_path=f"{folder}/videos",
        run={"dir": folder},
        executor="inline",
        gradient_logger=True,
        gradients={"log_freq": 4},
    )
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(callbacks=[callback, saved, stopping], max_epochs=9, accelerator="cpu", **quiet)
    torch.manual_seed(0)
    trainer.fit(Module(break_run))
    sys.stdout.write(f"trained {trainer.global_step} {Path(saved.best_model_path).name} {callback.run_folder}\n")


def main(what: str, folder: str) -> None:
    ways = {"finished": wandb.finish, "killed": kill_wandb_core, "full": lambda: fill_disk(folder)}
    train(ways[what], folder)
    if what == "killed":
        train(lambda: None, "further")


if __name__ == "__main__":
    main(*sys.argv[1:])
