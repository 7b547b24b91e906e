"""Tiny LightningModules with automatic and manual optimization."""

from __future__ import annotations

import copy
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def _batches(count: int) -> DataLoader[Any]:
    inputs = torch.linspace(-1, 1, 4 * count * 2).reshape(-1, 2)
    return DataLoader(TensorDataset(inputs), batch_size=4)


class TinyQ(pl.LightningModule):
    """A q-network with a target network and automatic optimization; its ``forward`` is never called.

    It has no validation loop; :class:`TinyValidatedQ` has one.

    Args:
        batches: Training batches per epoch.
    """

    def __init__(self, batches: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.q_network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
        self.target_network = copy.deepcopy(self.q_network).requires_grad_(False)
        self.env_steps = 0

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Fits q-values to targets; returns the usual metrics."""
        q_values, targets = self.q_network(batch[0]), self.target_network(batch[0]) + 1.0
        self.env_steps += 10
        loss = (q_values - targets).square().mean()
        return {"loss": loss, "q_values": q_values, "target q_value": targets, "td_error": q_values - targets}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns Adam for the q-network."""
        return torch.optim.Adam(self.q_network.parameters(), lr=1e-2)

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns a few fixed batches."""
        return _batches(int(self.hparams["batches"]))


class TinyValidatedQ(TinyQ):
    """A :class:`TinyQ` with a validation loop of one batch."""

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Does nothing."""

    def val_dataloader(self) -> DataLoader[Any]:
        """Returns one batch."""
        return _batches(1)


class TinyActorCritic(pl.LightningModule):
    """An actor and a critic with one optimizer each and manual optimization.

    Args:
        batches: Training batches per epoch.
    """

    def __init__(self, batches: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.actor = nn.Linear(1, 1)
        self.critic = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))

    def policy(self, observations: torch.Tensor) -> torch.distributions.Normal:
        """Returns a Gaussian with one dimension."""
        return torch.distributions.Normal(self.actor(observations), 0.5)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Steps both optimizers."""
        inputs = batch[0][:, :1]
        losses = {"actor_loss": self.actor(inputs).square().mean(), "critic_loss": self.critic(inputs).square().mean()}
        optimizers: Any = self.optimizers()
        for optimizer, loss in zip(optimizers, losses.values(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return {**losses, "loss": losses["actor_loss"], "entropy": self.policy(inputs).stddev.log()}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Returns one optimizer for each network."""
        return [torch.optim.SGD(self.actor.parameters(), lr=0.1), torch.optim.Adam(self.critic.parameters(), lr=0.01)]

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns a few fixed batches."""
        return _batches(int(self.hparams["batches"]))
