"""Trainings whose policy changes the state that they learn from, with and without evaluations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ

steps_done = 0


class Tutorial(TinyQ):
    """Selects actions as in PyTorch's tutorial on DQN: counts steps, lowers epsilon, and samples from the env."""

    def __init__(self) -> None:
        super().__init__()
        self.env, self.epsilon, self.history = CorridorEnv(), 0.9, []
        self.env.action_space.seed(0)
        self.env_steps = 0

    def select_action(self, observations: torch.Tensor) -> torch.Tensor:
        global steps_done  # noqa: PLW0603  # as in the tutorial
        self.epsilon = 0.05 + 0.85 * math.exp(-steps_done / 200)
        steps_done += 1
        self.env_steps += 1
        if torch.rand(()) > self.epsilon:
            return self.q_network(observations).argmax(dim=1)
        return torch.tensor([int(self.env.action_space.sample()) for _ in observations])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.history.append(self.select_action(batch[0]).tolist())
        values = super().training_step(batch, batch_idx)
        self.env_steps -= 10  # that the base class adds
        return values


class Reinforce(pl.LightningModule):
    """Stores log-probabilities of its actions while it acts, as in PyTorch's REINFORCE example."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.saved_log_probs = nn.Linear(2, 2), []

    def select_action(self, observations: torch.Tensor) -> torch.Tensor:
        policy = torch.distributions.Categorical(logits=self.network(observations))
        action = policy.sample()
        self.saved_log_probs.append(policy.log_prob(action))
        return action

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        for _ in range(3):
            self.select_action(batch[0])
        rewards = torch.arange(1.0, 4.0)
        losses = [-log_prob.sum() * reward for log_prob, reward in zip(self.saved_log_probs, rewards, strict=True)]
        self.saved_log_probs.clear()
        return torch.stack(losses).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    train_dataloader = TinyQ.train_dataloader
    hparams = {"batches": 6}  # noqa: RUF012  # as TinyQ has


@pytest.mark.filterwarnings("ignore:rlwandb. evaluation.policy 'select_action':UserWarning")
def test_steps_epsilon_and_random_actions_of_the_tutorial_are_those_without_evaluations(fit: Any) -> None:
    def trained(*callbacks: Any) -> Tutorial:
        global steps_done  # noqa: PLW0603
        steps_done = 0
        torch.manual_seed(0)
        module = Tutorial()
        fit(module, *callbacks)
        return module

    tracker = MemoryTracker()
    config = {"evaluation": {"every_n_steps": 3, "episodes": 4}, "video_logger": False}
    plain = trained()
    observed = trained(WandbRLCallback(config, env=CorridorEnv, policy="select_action", tracker=tracker))
    assert steps_done == 8
    assert observed.epsilon == pytest.approx(0.05 + 0.85 * math.exp(-7 / 200))
    assert observed.history == plain.history
    assert len([row for row in tracker.rows if "eval/return_mean" in row]) == 3
    assert max(row["time/env_steps"] for row in tracker.rows if "time/env_steps" in row) == 8
    for mine, theirs in zip(observed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.filterwarnings("ignore:rlwandb. evaluation.policy 'select_action':UserWarning")
def test_log_probabilities_of_evaluations_are_not_trained_with(fit: Any) -> None:
    def trained(*callbacks: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        module = Reinforce()
        fit(module, *callbacks)
        return list(module.parameters())

    config = {"evaluation": {"every_n_steps": 2, "episodes": 2}, "video_logger": False}
    callback = WandbRLCallback(config, env=CorridorEnv, policy="select_action", tracker=MemoryTracker())
    for mine, theirs in zip(trained(callback), trained(), strict=True):
        assert torch.equal(mine, theirs)
