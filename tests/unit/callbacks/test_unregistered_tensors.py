"""Names of trained tensors that are no parameters of the module, and what is said about checkpoints."""

from __future__ import annotations

import copy
import types
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import stack_module_state

from rlwandb_callbacks.callbacks.metrics.learning_rates import learning_rate_names
from rlwandb_callbacks.callbacks.trained_parameters import (
    names_by_id,
    tensors_without_network,
    trained_networks,
    trained_parameters,
)
from rlwandb_callbacks.callbacks.unregistered_tensors import describe_unsaved, unregistered_tensors


def sgd(*tensors: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(list(tensors), lr=0.1)


class Agent(nn.Module):
    """An agent of which only the actor is registered."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Linear(2, 1)
        self.critics = [nn.Linear(2, 1) for _ in range(3)]
        self.critic_params, self.critic_buffers = stack_module_state(self.critics)
        self.log_alpha = torch.zeros((), requires_grad=True)
        self.values = {"old": nn.Parameter(torch.zeros(2))}
        self.helper = types.SimpleNamespace(network=nn.Sequential(nn.Linear(2, 1)))


FREE = torch.zeros(2, requires_grad=True)


@pytest.mark.parametrize(
    ("tensors_of", "names"),
    [
        (lambda a: a.critic_params.values(), ["critic_params.weight", "critic_params.bias"]),
        (lambda a: [a.log_alpha], ["log_alpha"]),
        (lambda a: a.critics[1].parameters(), ["critics.1.weight", "critics.1.bias"]),
        (lambda a: a.values.values(), ["values.old"]),
        (lambda a: a.helper.network.parameters(), ["helper.network.0.weight", "helper.network.0.bias"]),
        (lambda a: [*a.actor.parameters(), FREE], ["actor.weight", "actor.bias", "optimizer0.2"]),
        (lambda _: [("free", FREE)], ["optimizer0.free"]),
    ],
    ids=["stacked", "bare tensor", "network in a list", "dict", "object", "out of reach", "named by the optimizer"],
)
def test_names_are_attribute_paths(tensors_of: Any, names: list[str]) -> None:
    agent = Agent()
    optimizer = sgd(*tensors_of(agent))
    trained = trained_parameters([optimizer], agent)
    assert list(trained) == names
    assert all(a is b for a, b in zip(trained.values(), optimizer.param_groups[0]["params"], strict=True))
    assert set(names) <= set(names_by_id([optimizer], agent).values())


def test_first_dimension_of_stacked_tensors_is_the_member() -> None:
    agent = Agent()
    weight = trained_parameters([sgd(*agent.critic_params.values())], agent)["critic_params.weight"]
    assert weight.shape == (3, 1, 2)
    assert torch.equal(weight[2], agent.critics[2].weight)


def test_tensors_of_one_of_several_optimizers_have_the_name_that_they_have_among_all() -> None:
    agent = Agent()
    optimizers = [sgd(*agent.actor.parameters()), sgd(FREE)]
    assert list(trained_parameters(optimizers, agent, of=optimizers[1:])) == ["optimizer1.0"]


def test_learning_rates_are_named_by_attributes() -> None:
    agent = Agent()
    optimizers = [sgd(*agent.critic_params.values()), sgd(agent.log_alpha), sgd(*agent.actor.parameters()), sgd(FREE)]
    assert learning_rate_names(optimizers, agent) == ["lr_critic_params", "lr_log_alpha", "lr_actor", "lr_optimizer3"]


def test_networks_and_tensors_outside_of_networks_are_measured() -> None:
    agent = Agent()
    held = [*agent.critics[1].parameters(), *agent.helper.network.parameters()]
    optimizers = [sgd(*agent.critic_params.values(), agent.log_alpha, *agent.actor.parameters(), *held)]
    networks = trained_networks(trained_parameters(optimizers, agent), agent)
    assert networks == {"actor": agent.actor, "critics.1": agent.critics[1], "helper.network": agent.helper.network}
    groups = tensors_without_network(optimizers, agent, networks.values())
    assert {name: len(tensors) for name, tensors in groups.items()} == {"critic_params": 2}


def unsaved(agent: nn.Module, *tensors: torch.Tensor) -> str | None:
    return describe_unsaved(unregistered_tensors([sgd(*tensors)], agent), agent)


def test_tensors_that_no_checkpoint_holds_are_named() -> None:
    agent = Agent()
    message = unsaved(agent, *agent.critic_params.values(), agent.log_alpha, *agent.critics[0].parameters())
    assert message is not None
    assert "(critic_params.weight, critic_params.bias, log_alpha and 2 more), so no checkpoint holds them" in message


def test_parameters_and_tensors_in_the_state_dict_are_not_warned_of() -> None:
    class Saves(Agent):
        def get_extra_state(self) -> Any:
            return {"alpha": [self.log_alpha]}

        def set_extra_state(self, state: Any) -> None:
            pass

    agent = Saves()
    agent.register_buffer("stacked", agent.critic_params["weight"])
    flat = torch.zeros(6, requires_grad=True)
    agent.actor.weight.data = flat.data[:2].view(1, 2)  # a view of the tensor that the optimizer trains
    assert unsaved(agent, *agent.actor.parameters()) is None
    assert unsaved(agent, agent.critic_params["weight"], agent.log_alpha, flat) is None


@pytest.mark.parametrize("package", [__name__, "lightning_agents.modules"])
def test_a_module_that_may_save_them_itself_is_asked_to(package: str) -> None:
    class Saves(Agent):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["log_alpha"] = self.log_alpha

    Saves.on_save_checkpoint.__module__ = package
    agent = Saves()
    assert "only if Saves.on_save_checkpoint saves them" in str(unsaved(agent, agent.log_alpha))


def test_copies_of_a_module_are_named_alike() -> None:
    agent = copy.deepcopy(Agent())
    assert list(trained_parameters([sgd(agent.log_alpha)], agent)) == ["log_alpha"]
