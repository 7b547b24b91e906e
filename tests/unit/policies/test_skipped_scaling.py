"""Networks of objects that scale actions, evaluated without these objects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from evaluations import evaluated
from gymnasium import spaces
from random_env import RandomEnv
from torch import nn


class MappingPolicy(nn.Module):
    """Has an actor and scales its actions, as the policies of tianshou do."""

    action_scaling = True

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(3, 2), nn.Tanh())

    def map_action(self, actions: torch.Tensor) -> torch.Tensor:
        return 9 * actions

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.map_action(self.actor(observations))


class UnitEnv(RandomEnv):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)


def module_with(agent: Any) -> nn.Module:
    module = nn.Module()
    module.agent = agent
    return module


def warnings_of(policy: str, agent: Any, env: Any = RandomEnv) -> list[str]:
    return evaluated(policy, module=module_with(agent), env=env, episodes=2)[1]


def test_actor_without_the_policy_that_maps_its_actions_is_warned_of() -> None:
    (message,) = warnings_of("agent.actor", MappingPolicy())
    assert "It is a part of agent, which scales its actions" in message
    assert "Set evaluation.policy to agent itself" in message


def test_network_of_an_algorithm_with_an_action_scaler_is_warned_of() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Tanh())  # as in an algorithm of d3rlpy
    modules = SimpleNamespace(policy=network, optimizer=None)
    agent = SimpleNamespace(action_scaler=object(), impl=SimpleNamespace(modules=modules, policy=network))
    (message,) = warnings_of("agent.impl.policy", agent)
    assert "It is a part of agent" in message
    agent.action_scaler = None
    assert warnings_of("agent.impl.policy", agent) == []


def test_policy_that_maps_its_own_actions_is_not_warned_of() -> None:
    assert warnings_of("agent", MappingPolicy()) == []


def test_actor_of_a_policy_that_does_not_scale_is_not_warned_of() -> None:
    agent: Any = MappingPolicy()
    agent.action_scaling = False
    assert warnings_of("agent.actor", agent) == []
    assert warnings_of("agent.actor", MappingPolicy(), env=UnitEnv) == []


class CleanRLActor(nn.Module):
    """Returns mean and logarithm of the standard deviation, and scales actions in ``get_action``, as CleanRL's SAC."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(3, 2)
        self.register_buffer("action_scale", torch.tensor(2.0))

    def forward(self, observations: torch.Tensor) -> Any:
        mean = self.mean(observations)
        return mean, torch.zeros_like(mean)

    def get_action(self, observations: torch.Tensor) -> Any:
        mean, _ = self(observations)
        return torch.tanh(mean) * self.action_scale, None, torch.tanh(mean) * self.action_scale


class ScalingActor(CleanRLActor):
    """Scales its actions in ``forward``, as CleanRL's DDPG."""

    def forward(self, observations: torch.Tensor) -> Any:
        return torch.tanh(self.mean(observations)) * self.action_scale


def test_forward_that_leaves_out_the_scale_of_another_method_is_warned_of() -> None:
    (message,) = (each for each in warnings_of("agent", CleanRLActor()) if "action_scale" in each)
    assert "its method get_action does" in message
    assert not any("action_scale" in each for each in warnings_of("agent.get_action", CleanRLActor()))
    assert not any("action_scale" in each for each in warnings_of("agent", ScalingActor()))


class SamplingActor(CleanRLActor):
    """Scales its actions in ``sample``, as other implementations of soft actor-critic."""

    get_action: Any = None

    def sample(self, observations: torch.Tensor) -> Any:
        mean, _ = self(observations)
        return torch.tanh(mean) * self.action_scale, None, mean


def test_forward_as_a_method_and_other_names_of_the_method_that_scales_are_known_too() -> None:
    (message,) = (each for each in warnings_of("agent.forward", SamplingActor()) if "action_scale" in each)
    assert "its method sample does" in message
    assert not any("action_scale" in each for each in warnings_of("agent.sample", SamplingActor()))
