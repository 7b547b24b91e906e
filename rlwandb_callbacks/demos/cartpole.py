"""``rlwandb demo``: trains CartPole with DQN and prints where its videos are."""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.demos.dqn import DQN
from rlwandb_callbacks.tracking.sync_commands import sync_command_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo and prints its result; returns the exit status."""
    options = parse(arguments)
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    warnings.filterwarnings("ignore", category=FutureWarning, module="pytorch_lightning")
    torch.set_num_threads(1)
    callback = WandbRLCallback(
        env="CartPole-v1",
        policy="q_network",
        action_logger="q_value",
        gradient_logger=True,
        record_path=str(options.record_path),
        gradients={"log_freq": 500},
        run={"project": "rlwandb-demo", "name": f"cartpole-dqn-seed{options.seed}"},
    )
    trainer = pl.Trainer(
        max_epochs=1,
        val_check_interval=min(options.val_check_interval, options.updates or options.val_check_interval),
        **({"limit_train_batches": options.updates} if options.updates else {}),
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        callbacks=[callback],
        accelerator="cpu",
    )
    started = time.monotonic()
    trainer.fit(DQN(seed=options.seed))
    print(summary(trainer, callback, options.record_path, time.monotonic() - started))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the options of ``rlwandb demo``."""
    parser = argparse.ArgumentParser("rlwandb demo", description="Trains CartPole with DQN and records videos of it.")
    parser.add_argument("--seed", type=int, default=0, help="seed of network, exploration and environment")
    parser.add_argument("--updates", type=int, default=None, help="number of updates, for a shorter demo")
    parser.add_argument("--val-check-interval", type=int, default=2_000, help="updates between two evaluations")
    parser.add_argument("--record-path", type=Path, default=Path("rl_videos"), help="folder of the videos")
    return parser.parse_args(arguments)


def summary(trainer: pl.Trainer, callback: WandbRLCallback, record_path: Path, seconds: float) -> str:
    """Returns the text that the demo prints at its end."""
    metrics = trainer.callback_metrics
    videos = sorted(record_path.glob("**/*.mp4"), key=lambda path: path.stat().st_mtime)[-3:]
    folder = callback.run_folder
    lines = [
        "",
        f"Trained for {seconds:.0f} s.",
        f"Evaluation return: {float(metrics.get('eval/return_mean', float('nan'))):.0f} of 500",
        f"Run:    {folder}",
        "Videos, each with a contact sheet (.png) beside it; any browser or video player shows them:",
        *(f"        {video}" for video in videos),
        f"Charts and images in this terminal:   wandb beta leet {folder}",
        f"To your W&B account:                  wandb login && {'' if folder is None else sync_command_of(folder)}",
    ]
    return "\n".join(lines)
