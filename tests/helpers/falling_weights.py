"""Policy whose return is its weight, and an environment that pays it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytorch_lightning as pl
import torch
from gymnasium import spaces
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.testing import MemoryTracker

RETURN, AVERAGED = "eval/return_mean", "eval/averaged_weights"


class PaysTheAction(gym.Env[Any, Any]):
    """Pays the action and ends."""

    observation_space = spaces.Box(0.0, 1.0, (1,))
    action_space = spaces.Box(-10.0, 10.0, (1,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float(action[0]), True, False, {}


class Falls(pl.LightningModule):
    """Policy whose return is its weight: 1 - 0.01 k after k updates."""

    def __init__(self, batches: int = 10) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.batches = batches

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return self.weight.expand(len(observations), 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.steps += 1
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(self.batches, 1)))


class Validated(Falls):
    """Notes the weights that validation sees."""

    def __init__(self, batches: int = 10) -> None:
        super().__init__(batches)
        self.seen: list[float] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(self.weight.item())

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(1, 1)))


class WithNorm(Falls):
    """Has batch norm, whose statistics are means of random inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return super().policy(observations) + self.norm.running_mean

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx) + self.norm(torch.rand(8, 1)).square().mean()


class Raises(PaysTheAction):
    """Cannot be stepped."""

    def step(self, action: Any) -> Any:
        raise RuntimeError("simulator crashed")


def evaluation(
    tracker: MemoryTracker, every_n_steps: int = 10_000, on_error: str = "raise", **options: Any
) -> EvaluationCallback:
    settings = {"policy": "policy", "episodes": 1, "every_n_steps": every_n_steps, "env": PaysTheAction, **options}
    quiet = {"video_logger": False, "return_logger": False, "on_error": on_error}
    return EvaluationCallback({"evaluation": settings, **quiet}, tracker=tracker)


def played(tracker: MemoryTracker) -> list[tuple[int, float, float | None]]:
    """Returns updates, return and ``eval/averaged_weights`` of each evaluation."""
    rows = [row for row in tracker.rows if RETURN in row]
    return [(int(row["time/updates"]), round(row[RETURN], 5), row.get(AVERAGED)) for row in rows]


class Actor(nn.Module):
    """Network whose action is its weight."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.weight.expand(len(observations), 1)
