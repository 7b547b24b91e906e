"""Trains a tiny agent with all parts of the callback, and prints how long its hooks took, as one line of JSON.

Usage: online_load.py UPDATES EVALUATIONS FINISH_SECONDS EXECUTOR
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ

# The run is opened in the first and finished in the others; training stands still in all hooks between them.
BEFORE_TRAINING = {"setup", "on_fit_start", "on_sanity_check_start", "on_sanity_check_end", "on_train_start"}
AFTER_TRAINING = {"on_train_end", "on_fit_end", "teardown"}


def timed(function: Callable[..., Any], durations: list[float]) -> Callable[..., Any]:
    """Returns a function that also appends its duration in seconds."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            durations.append(time.perf_counter() - started)

    return call


def main(updates: int, evaluations: int, finish_seconds: float, executor: str) -> None:
    torch.manual_seed(0)
    callback = WandbRLCallback(
        gradient_logger=True,
        finish_seconds=finish_seconds,
        executor=executor,
        metrics={"every_n_steps": 1},
        gradients={"log_freq": 10},
        evaluation={"env": CorridorEnv, "policy": "q_network", "episodes": 3},
        run={"project": "load", "id": f"load{updates}"},
    )
    hooks = [name for name in dir(pl.Callback) if name.startswith("on_") or name in ("setup", "teardown")]
    durations: dict[str, list[float]] = {name: [] for name in hooks}
    for name in hooks:
        setattr(callback, name, timed(getattr(callback, name), durations[name]))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=evaluations,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[callback],
    )
    trainer.fit(TinyValidatedQ(batches=updates // evaluations))
    longest = {name: max(times) for name, times in durations.items() if times}
    in_training = {name: value for name, value in longest.items() if name not in BEFORE_TRAINING | AFTER_TRAINING}
    folder = next(Path("wandb").glob("*run-*"))
    report = {"longest": max(in_training.values()), "hook": max(in_training, key=lambda name: in_training[name])}
    sys.stdout.write(json.dumps({**report, "all": longest, "folder": str(folder)}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
