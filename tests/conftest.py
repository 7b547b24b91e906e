"""What every test can rely on: no network, no account, one thread, a folder of its own, no run left open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]
os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "SDL_VIDEODRIVER": "dummy"}
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs each test in an empty folder, away from the user's accounts, and finishes what it leaves open."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    yield
    import wandb

    wandb.teardown()  # also makes W&B forget the folder in which it was first used
    # Runs and videos of a whole suite fill a small disk.
    shutil.rmtree(tmp_path, ignore_errors=True)


Fit = Callable[..., pl.Trainer]


@pytest.fixture
def fit() -> Fit:
    """Trains a module for a few batches with the given callbacks; keywords go to the Trainer."""

    def run(module: pl.LightningModule, *callbacks: Any, ckpt_path: str | None = None, **options: Any) -> pl.Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "max_epochs": 1}
        trainer = pl.Trainer(
            **{**quiet, "logger": False, "enable_checkpointing": False, **options}, callbacks=list(callbacks)
        )
        trainer.fit(module, ckpt_path=ckpt_path)
        return trainer

    return run
