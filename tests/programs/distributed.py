"""Trains a tiny agent in several processes; tests start it as a script, by torchrun, and once per rank.

Usage: distributed.py STRATEGY DEVICES NODES SCENARIO
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from rlwandb_callbacks import Episode, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyQ, TinyValidatedQ

warnings.simplefilter("ignore")
torch.set_num_threads(1)


class BreaksOnRankOne(CorridorEnv):
    """Env that fails on rank 1 only."""

    def step(self, action: Any) -> Any:
        if rank() == 1:
            raise RuntimeError("the simulator of rank one is gone")
        return super().step(action)


class HangsOnRankOne(CorridorEnv):
    """Env that does not return from its evaluations on rank 1."""

    hangs = False

    def step(self, action: Any) -> Any:
        if self.hangs and rank() == 1:
            time.sleep(1e6)
        return super().step(action)


class BreaksEverywhere(CorridorEnv):
    """Env that fails on all ranks."""

    def step(self, action: Any) -> Any:
        raise RuntimeError("the simulator is gone")


class UnseededRewards(CorridorEnv):
    """Env with rewards that the seed does not reproduce."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, reward + 1e-3 * float(np.random.default_rng().random()), *rest


class CannotBeMadeOnRankOne(CorridorEnv):
    """Env whose constructor fails on rank 1."""

    def __init__(self, render_mode: str | None = None) -> None:
        if rank() == 1:
            raise RuntimeError("no license for rank one")
        super().__init__(render_mode)


class RankedQ(TinyValidatedQ):
    """Module that logs its rank as the metric ``entropy``."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {**super().training_step(batch, batch_idx), "entropy": torch.tensor(float(rank()))}


class LetsEnvHang(RankedQ):
    """Module whose environment hangs once training has begun."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        HangsOnRankOne.hangs = True


class WithoutValidation(TinyQ):
    """Module without a validation loop, whose return a callback monitors."""


class CountsEpisodes(RankedQ):
    """Module that ends an episode in each batch, with a return of 10 and 5 more steps on rank 1."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.env_steps += 5 * rank()
        return {**super().training_step(batch, batch_idx), "episode_return": torch.tensor(10.0 * rank())}


class UnequalBatches(CountsEpisodes):
    """Module with two batches less in each epoch of rank 1."""

    def train_dataloader(self) -> Any:
        self.hparams["batches"] = 8 - 2 * rank()
        return super().train_dataloader()


class EpisodesOnRankZero(RankedQ):
    """Module that returns an episode on rank 0 only, although an environment is configured."""

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        episode = Episode(actions=np.zeros(3, dtype=np.int64), rewards=np.ones(3), terminated=True)
        return {"episodes": [episode]} if rank() == 0 else None


class LogsReturn(RankedQ):
    """Module that logs the mean return of one of the evaluations itself."""

    def on_validation_epoch_end(self) -> None:
        self.log("eval/near/return_mean", -7.0, sync_dist=True)


class ChoiceError(Exception):
    """Error that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("no episode is good enough")
        self.reason = lambda: None


def choose_nothing(episodes: Any) -> Any:
    """Choice of episodes that fails."""
    raise ChoiceError


def rank() -> int:
    return (
        torch.distributed.get_rank() if torch.distributed.is_initialized() else int(os.environ.get("LOCAL_RANK", "0"))
    )


ENVS = {
    "plain": CorridorEnv,
    "reduced": CorridorEnv,
    "one": BreaksOnRankOne,
    "hanging": HangsOnRankOne,
    "all": BreaksEverywhere,
    "restless": UnseededRewards,
    "unmade": CannotBeMadeOnRankOne,
    "uneven": CorridorEnv,
    "choosy": CorridorEnv,
    "monitored": BreaksOnRankOne,
    "named": CorridorEnv,
    "unequal": CorridorEnv,
}

MODULES: dict[str, type[TinyQ]] = {
    "reduced": CountsEpisodes,
    "unequal": UnequalBatches,
    "hanging": LetsEnvHang,
    "uneven": EpisodesOnRankZero,
    "monitored": WithoutValidation,
    "named": LogsReturn,
}
MONITORS = {"monitored": "eval/return_mean", "named": "eval/far/return_mean"}


def main(strategy: str, devices: str, nodes: str, scenario: str) -> None:
    names = {"near": {"seed": 0}, "far": {"seed": 3}} if scenario == "named" else {}
    monitor = MONITORS.get(scenario)
    max_seconds = 3.0 if scenario == "hanging" else 600.0
    callback = WandbRLCallback(
        executor="inline",
        action_logger="q_value",
        metrics={"every_n_steps": 2, "reduce_over_ranks": scenario in ("reduced", "unequal")},
        videos={"select": choose_nothing} if scenario == "choosy" else {},
        evaluation={"env": ENVS[scenario], "policy": "q_network", "episodes": 5, "max_seconds": max_seconds, **names},
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy=strategy,
        devices=int(devices),
        num_nodes=int(nodes),
        max_epochs=-1 if scenario == "unequal" else 2,
        max_steps=16 if scenario == "unequal" else -1,
        use_distributed_sampler=scenario != "unequal",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EarlyStopping(monitor, mode="max"), callback] if monitor is not None else [callback],
    )
    module = MODULES.get(scenario, RankedQ)()
    trainer.fit(module, ckpt_path=None)
    if strategy == "ddp_spawn":
        trainer.validate(module, verbose=False)
        sys.stdout.write(f"run folder: {callback.run_folder}\n")
    elif scenario == "unequal":
        weights = sum(float(parameter.double().sum()) for parameter in module.parameters())
        sys.stdout.write(f"step {trainer.global_step} ends with {weights}\n")
    else:
        keys = ["eval/near/return_mean", "eval_rl/near/return_mean"] if names else ["eval/return_mean"]
        values = [float(trainer.callback_metrics[key]) for key in keys]
        sys.stdout.write(f"rank {trainer.global_rank} ends with {' and '.join(map(str, values))}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
