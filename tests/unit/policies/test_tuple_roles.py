"""Tuples of CleanRL's agents, which begin with a sample of the actions, and agents with a training flag."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from evaluations import evaluated
from gymnasium import spaces
from torch import nn
from torch.distributions import Categorical, Normal

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.policies.dry_run import PolicyTraits
from rlwandb_callbacks.policies.output_actions import action_batch
from rlwandb_callbacks.policies.output_tuples import NO_ROLES, TupleRoles


def traits_of(policy: Any, env: str) -> PolicyTraits:
    cfg = WandbRLConfig(video_logger=False, evaluation=EvaluationConfig(policy=policy, env=env, episodes=3))
    module = nn.Module()
    module.agent = getattr(policy, "__self__", None)
    with preserved_state(module, seed=0, policy=policy):
        traits = Evaluator(cfg, module, lambda message, kind: None)._traits
    assert traits is not None
    return traits


class SacActor(nn.Module):
    """As CleanRL's, with heads of one dimension, which the value has too."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.mean, self.log_std, self.value = nn.Linear(3, 1), nn.Linear(3, 1), nn.Linear(3, 1)
        self.register_buffer("action_scale", torch.tensor([2.0]))
        self.register_buffer("action_bias", torch.tensor([0.0]))

    def forward(self, observations: torch.Tensor) -> Any:
        return self.mean(observations), -5 + 3.5 * (torch.tanh(self.log_std(observations)) + 1)

    def mode(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.mean(observations)) * self.action_scale + self.action_bias

    def get_action(self, observations: torch.Tensor) -> Any:
        mean, log_std = self(observations)
        normal = Normal(mean, log_std.exp())
        drawn = normal.rsample()
        squashed = torch.tanh(drawn)
        log_prob = normal.log_prob(drawn) - torch.log(self.action_scale * (1 - squashed.pow(2)) + 1e-6)
        return squashed * self.action_scale + self.action_bias, log_prob.sum(1, keepdim=True), self.mode(observations)

    def without_the_mean(self, observations: torch.Tensor) -> Any:
        action, log_prob, _ = self.get_action(observations)
        return action, log_prob, self.value(observations)

    def with_its_std(self, observations: torch.Tensor) -> Any:
        action, log_prob, _ = self.get_action(observations)
        return action, log_prob, self(observations)[1].exp()

    def before_the_tanh(self, observations: torch.Tensor) -> Any:
        action, log_prob, _ = self.get_action(observations)
        return action, log_prob, self.mean(observations)

    def of_numpy(self, observations: torch.Tensor) -> Any:
        mean = self.mode(observations)
        drawn = mean + torch.as_tensor(np.random.normal(size=mean.shape), dtype=torch.float32)  # noqa: NPY002
        return drawn, -(drawn - mean).square(), mean

    def unscaled(self, observations: torch.Tensor) -> Any:
        action, log_prob, mean = self.get_action(observations)
        return action, log_prob, mean / 2


def test_mean_after_a_sample_and_its_log_probability_is_played() -> None:
    actor = SacActor()
    played, warnings = evaluated(actor.get_action, module=actor, env="Pendulum-v1", episodes=2)
    expected, _ = evaluated(actor.mode, module=actor, env="Pendulum-v1", episodes=2)
    assert warnings == []
    assert [each.total_return for each in played] == [each.total_return for each in expected]
    sampled, _ = evaluated(actor.get_action, module=actor, env="Pendulum-v1", episodes=2, deterministic=False)
    assert [each.total_return for each in sampled] != [each.total_return for each in expected]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["without_the_mean", "with_its_std", "before_the_tanh", "of_numpy", "unscaled"])
def test_entry_that_is_not_certainly_the_mode_is_not_played(name: str, seed: int) -> None:
    traits = traits_of(getattr(SacActor(seed), name), "Pendulum-v1")
    assert traits.roles.mean is None
    assert [kind for kind, _ in traits.warnings] == ["policy samples"]


class PpoAgent(nn.Module):
    """As CleanRL's, for actions that are integers or numbers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.actor, self.critic = nn.Linear(size, 2 if size == 4 else 1), nn.Linear(size, 1)

    def get_action_and_value(self, observations: torch.Tensor, action: Any = None) -> Any:
        scores = self.actor(observations)
        pi: Any = Categorical(logits=scores) if scores.shape[1] == 2 else Normal(scores, 1.0)
        action = pi.sample() if action is None else action
        log_prob, entropy = pi.log_prob(action), pi.entropy()
        if scores.shape[1] == 1:
            log_prob, entropy = log_prob.sum(1), entropy.sum(1)
        return action, log_prob, entropy, self.critic(observations)

    def value_first(self, observations: torch.Tensor) -> Any:
        action, log_prob, entropy, value = self.get_action_and_value(observations)
        return action, log_prob, value, entropy

    def two_values(self, observations: torch.Tensor) -> Any:
        action, log_prob, _, value = self.get_action_and_value(observations)
        return action, log_prob, value, 2 * value


@pytest.mark.parametrize(("env", "size"), [("CartPole-v1", 4), ("Pendulum-v1", 3)])
def test_value_after_log_probability_and_entropy_is_read(env: str, size: int) -> None:
    agent = PpoAgent(size)
    traits = traits_of(agent.get_action_and_value, env)
    assert traits.roles == TupleRoles(mean=None, value=3)
    assert traits_of(agent.value_first, env).roles == NO_ROLES
    assert traits_of(agent.two_values, env).roles == NO_ROLES
    played, _ = evaluated(agent.get_action_and_value, module=agent, env=env, episodes=2)
    assert played[0].values is not None


class FlagAgent:
    """Explores while it is trained, as pfrl's agents."""

    training = True

    def batch_act(self, observations: Any) -> list[Any]:
        step = 1.0 if self.training else 0.5
        return [np.array([step], dtype=np.float32) for _ in observations]


@pytest.mark.parametrize("is_own", [True, False])
def test_agent_that_is_no_network_is_in_evaluation_mode_while_it_acts(is_own: bool) -> None:
    agent = FlagAgent()
    if is_own:
        agent.training = True
    before = dict(vars(agent))
    played, warnings = evaluated(agent.batch_act, env="Pendulum-v1", episodes=2)
    assert warnings == []
    assert set(played[0].actions.ravel().tolist()) == {0.5}
    assert vars(agent) == before


def test_list_of_tensors_that_may_be_the_dimensions_is_refused() -> None:
    space = spaces.Box(-1.0, 1.0, (3,))
    columns = [torch.full((3,), float(index) / 4) for index in range(3)]
    assert action_batch(space, columns, 3) is None
    assert action_batch(space, [column.numpy() for column in columns], 3).tolist() == [[0] * 3, [0.25] * 3, [0.5] * 3]
    assert action_batch(space, columns[:2], 2).tolist() == [[0.0] * 3, [0.25] * 3]
