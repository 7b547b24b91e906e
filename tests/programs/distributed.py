"""Trains a tiny agent in several processes; started by the tests as a script, by torchrun, and once per rank.

Usage: distributed.py STRATEGY DEVICES NODES SCENARIO
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from rlwandb_callbacks import Episode, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ

warnings.simplefilter("ignore")
torch.set_num_threads(1)


class BreaksOnRankOne(CorridorEnv):
    """Fails in one process only."""

    def step(self, action: Any) -> Any:
        if rank() == 1:
            raise RuntimeError("the simulator of rank one is gone")
        return super().step(action)


class BreaksEverywhere(CorridorEnv):
    """Fails in all processes."""

    def step(self, action: Any) -> Any:
        raise RuntimeError("the simulator is gone")


class Restless(CorridorEnv):
    """Gives rewards that no seed brings back."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, reward + 1e-3 * float(np.random.default_rng().random()), *rest


class CannotBeMadeOnRankOne(CorridorEnv):
    """Cannot be made in one process only."""

    def __init__(self, render_mode: str | None = None) -> None:
        if rank() == 1:
            raise RuntimeError("no license for rank one")
        super().__init__(render_mode)


class RankedQ(TinyValidatedQ):
    """Tells its rank as a metric."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {**super().training_step(batch, batch_idx), "entropy": torch.tensor(float(rank()))}


class Unevenly(RankedQ):
    """Brings an episode of its own on rank zero only, although there is an environment."""

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        episode = Episode(actions=np.zeros(3, dtype=np.int64), rewards=np.ones(3), terminated=True)
        return {"episodes": [episode]} if rank() == 0 else None


def rank() -> int:
    return (
        torch.distributed.get_rank() if torch.distributed.is_initialized() else int(os.environ.get("LOCAL_RANK", "0"))
    )


ENVS = {
    "plain": CorridorEnv,
    "reduced": CorridorEnv,
    "one": BreaksOnRankOne,
    "all": BreaksEverywhere,
    "restless": Restless,
    "unmade": CannotBeMadeOnRankOne,
    "uneven": CorridorEnv,
}


def main(strategy: str, devices: str, nodes: str, scenario: str) -> None:
    callback = WandbRLCallback(
        executor="inline",
        action_logger="q_value",
        metrics={"every_n_steps": 2, "reduce_over_ranks": scenario == "reduced"},
        evaluation={"env": ENVS[scenario], "policy": "q_network", "episodes": 5},
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy=strategy,
        devices=int(devices),
        num_nodes=int(nodes),
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    trainer.fit((Unevenly if scenario == "uneven" else RankedQ)(), ckpt_path=None)
    if strategy == "ddp":
        sys.stdout.write(
            f"rank {trainer.global_rank} ends with {float(trainer.callback_metrics['eval/return_mean'])}\n"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
