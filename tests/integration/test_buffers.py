"""Evaluation changes no training through buffers, attributes and generators of the policy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ


class NoisyLinear(nn.Module):
    """Linear layer with noise in buffers, which are drawn again at each call in evaluation mode too."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mean = nn.Linear(inputs, outputs)
        self.sigma = nn.Parameter(torch.full((outputs, inputs), 0.5))
        self.register_buffer("noise", torch.zeros(outputs, inputs))
        self.register_buffer("draws", torch.zeros(()), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.mean(inputs) + inputs @ (self.sigma * self.noise.clone()).T
        self.noise.copy_(torch.sin(self.draws + torch.arange(self.noise.numel())).reshape(self.noise.shape))
        self.draws += 1
        return outputs


class RunningNorm(nn.Module):
    """Normalizer whose statistics are new tensors at each call."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("count", torch.ones(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.count = self.count + len(inputs)
        self.mean = self.mean + (inputs.detach() - self.mean).sum(dim=0) / self.count
        return inputs - self.mean


class Noisy(TinyQ):
    """Agent with noise and statistics in buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.q_network = nn.Sequential(RunningNorm(2), NoisyLinear(2, 8), nn.ReLU(), NoisyLinear(8, 2))


class NormalizesOutside(TinyQ):
    """Agent that normalizes by an object and explores with a generator, neither of which is a network."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = SimpleNamespace(norm=RunningNorm(2), rng=np.random.default_rng(1), mean=np.zeros(2), count=0.0)
        self.agents = [self.agent]

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        agent = self.agents[0]
        agent.count += len(observations)
        agent.mean += observations.sum(dim=0).numpy() / agent.count
        noise = torch.as_tensor(agent.rng.normal(size=2) + agent.mean, dtype=torch.float32)
        return self.q_network(agent.norm(observations)) + noise

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        shift = torch.as_tensor(self.agent.mean + self.agent.rng.normal(size=2), dtype=torch.float32)
        return super().training_step([self.agent.norm(batch[0]) + shift], batch_idx)


class LowersEpsilon(TinyQ):
    """Agent as in PyTorch's DQN tutorial, whose training depends on how often select_action was called."""

    def __init__(self) -> None:
        super().__init__()
        self.steps_done, self.epsilon, self.weights = 0, torch.tensor(0.9), {"td": np.ones(2)}

    def select_action(self, observations: torch.Tensor) -> torch.Tensor:
        self.steps_done += 1
        self.epsilon = self.epsilon * 0.99
        self.weights["td"] *= 0.99
        return self.q_network(observations)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.select_action(batch[0])
        scale = float(self.epsilon) * self.weights["td"][0] + self.steps_done
        return super().training_step([batch[0] * scale], batch_idx)


@pytest.mark.filterwarnings("ignore:rlwandb. evaluation.policy")  # its outputs change from call to call
@pytest.mark.parametrize(
    ("module_class", "policy"),
    [(Noisy, "q_network"), (NormalizesOutside, "policy"), (LowersEpsilon, "select_action")],
)
def test_weights_and_buffers_are_bit_identical_with_and_without_evaluations(
    module_class: Any, policy: str, fit: Any
) -> None:
    def trained(*callbacks: Any) -> list[torch.Tensor]:
        pl.seed_everything(3, verbose=False)
        module = module_class()
        fit(module, *callbacks)
        return [*module.parameters(), *module.buffers()]

    evaluation = {"env": CorridorEnv, "policy": policy, "episodes": 2, "every_n_steps": 3}
    cfg = {"evaluation": evaluation, "video_logger": False, "return_logger": False, "on_error": "raise"}
    tracker = MemoryTracker()
    with_evaluations = trained(EvaluationCallback(cfg, tracker=tracker))
    assert len([row for row in tracker.rows if "eval/return_mean" in row]) == 3
    assert all(torch.equal(one, other) for one, other in zip(trained(), with_evaluations, strict=True))
