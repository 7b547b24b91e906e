"""Buffers, attributes and generators of a module and its policy, which an evaluation leaves as they were."""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.policies import saved_values
from rlwandb_callbacks.testing import CorridorEnv


class Noisy(nn.Module):
    """Network that draws new noise at each call, in place or as a new tensor."""

    def __init__(self, *, persistent: bool = True, in_place: bool = True) -> None:
        super().__init__()
        self.register_buffer("noise", torch.tensor([1.0, float("nan")]), persistent=persistent)
        self.in_place = in_place

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        drawn = torch.randn(2)
        if self.in_place:
            self.noise.copy_(drawn)
        else:
            self.noise = drawn
        return observations + self.noise


class RunningStatistics:
    """Statistics in numpy, as those of Stable-Baselines3, which are updated at each call."""

    def __init__(self) -> None:
        self.mean, self.count = np.zeros(2), 0.5
        self.calls = 0

    def __call__(self, observations: Any) -> Any:
        self.calls += 1
        self.count += len(observations)
        self.mean = self.mean + np.asarray(observations).sum(axis=0) / self.count
        return observations - torch.as_tensor(self.mean)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("persistent", [True, False])
def test_buffers_are_put_back_into_the_same_tensor(persistent: bool, in_place: bool) -> None:
    module = nn.Sequential(nn.Linear(2, 2), Noisy(persistent=persistent, in_place=in_place))
    before = module[1].noise
    with preserved_state(module, seed=0):
        module(torch.zeros(3, 2))
        assert before is not module[1].noise or not before.isnan().any()
    assert module[1].noise is before
    assert before[0] == 1
    assert before[1].isnan()


def unchanged_buffer(module: nn.Module) -> int:
    with preserved_state(module, seed=0):
        pass
    return module.noise._version


def test_unchanged_buffers_are_not_written() -> None:
    module = Noisy()
    assert unchanged_buffer(module) == 0


NET = Noisy()


def plays_global(observations: torch.Tensor) -> torch.Tensor:
    return NET(observations)


class Agent:
    """Agent with a network in a plain attribute, which no module registers."""

    def __init__(self, net: nn.Module) -> None:
        self.policy = SimpleNamespace(net=net)

    def act(self, observations: torch.Tensor) -> torch.Tensor:
        return self.policy.net(observations)


def closure(net: nn.Module) -> Callable[..., Any]:
    def policy(observations: torch.Tensor) -> Any:
        return net(observations) * 1

    return policy


def adapter_in_module(module: nn.Module, net: nn.Module) -> Callable[..., Any]:
    module.agents = [Agent(net)]  # a list hides it from nn.Module
    return module.agents[0].act


@pytest.mark.parametrize(
    "hold",
    [
        lambda module, net: net,
        lambda module, net: Agent(net).act,
        lambda module, net: closure(net),
        lambda module, net: functools.partial(lambda n, observations: n(observations), net),
        adapter_in_module,
    ],
    ids=["network", "method", "closure", "partial", "list in the module"],
)
def test_networks_that_the_module_does_not_register_are_preserved(hold: Callable[..., Any]) -> None:
    module, net = nn.Module(), Noisy()
    policy = hold(module, net)
    net.train()
    with preserved_state(module, seed=0, policy=None if hold is adapter_in_module else policy):
        net.eval()
        policy(torch.zeros(1, 2))
        assert not net.noise.isnan().any()
    assert net.noise[0] == 1
    assert net.training


def test_networks_of_an_imported_function_are_preserved() -> None:
    with preserved_state(nn.Module(), seed=0, policy=f"{__name__}:plays_global"):
        plays_global(torch.zeros(1, 2))
    assert NET.noise[0] == 1


def test_running_statistics_in_numpy_are_put_back_with_their_count() -> None:
    module = nn.Module()
    module.normalize = RunningStatistics()
    with preserved_state(module, seed=0):
        module.normalize(torch.ones(4, 2))
        assert module.normalize.mean.sum() > 0
    assert module.normalize.mean.tolist() == [0, 0]
    assert (module.normalize.count, module.normalize.calls) == (0.5, 0)


class Schedule:
    """Schedule of exploration, which advances at each call."""

    def __init__(self) -> None:
        self.steps, self.epsilon = 0, np.float64(1.0)

    def __call__(self) -> float:
        self.steps += 1
        self.epsilon *= 0.9
        return float(self.epsilon)


class Explorer(nn.Module):
    """Agent as in PyTorch's DQN tutorial: select_action counts its calls and lowers epsilon."""

    def __init__(self) -> None:
        super().__init__()
        self.steps_done, self.epsilon, self.history = 0, torch.tensor(0.9), {"epsilon": [1.0]}
        self.schedule = Schedule()
        self.visits, self.recent = {}, deque([1, 2], maxlen=2)

    def select_action(self, observations: torch.Tensor) -> None:
        self.steps_done += 1
        self.epsilon = self.epsilon * 0.99
        self.history["epsilon"].append(self.schedule())
        self.visits[len(observations)] = self.visits.get(len(observations), 0) + 1
        self.recent.append(3)
        self.last = observations


@pytest.mark.parametrize("is_in_module", [True, False])
def test_counters_schedules_and_containers_are_put_back_and_logs_are_kept(is_in_module: bool) -> None:
    agent = Explorer()
    epsilon, recent = agent.epsilon, agent.recent
    module, policy = (agent, "select_action") if is_in_module else (nn.Module(), agent.select_action)
    with preserved_state(module, seed=0, policy=policy):
        for _ in range(3):
            agent.select_action(torch.zeros(1, 2))
    assert (agent.steps_done, agent.schedule.steps, agent.schedule.epsilon) == (0, 0, 1.0)
    assert agent.epsilon is epsilon
    assert agent.visits == {}
    assert agent.recent is recent
    assert list(recent) == [1, 2]
    assert not hasattr(agent, "last")
    assert len(agent.history["epsilon"]) == 4


def test_list_that_lost_entries_is_put_back() -> None:
    agent = SimpleNamespace(queue=[1, 2, 3])
    queue = agent.queue
    with preserved_state(nn.Module(), seed=0, policy=agent):
        agent.queue.pop(0)
        agent.queue.append(4)
    assert agent.queue is queue
    assert queue == [1, 2, 3]


def test_environments_and_what_they_count_are_left_alone() -> None:
    module = nn.Module()
    module.env, module.eval_env = CorridorEnv(), None
    with preserved_state(module, seed=0):
        module.env.reset(seed=3)
        module.env.steps_of_test = 5
        module.eval_env = module.env
        module.other_env = module.env
    assert module.env.steps_of_test == 5
    assert module.eval_env is module.other_env is module.env


@pytest.mark.parametrize(
    "memory", [list(range(2000)), deque(range(2000), maxlen=2000), dict.fromkeys(range(2000))], ids=type
)
def test_replay_memory_is_left_alone_and_a_change_of_it_is_named(memory: Any) -> None:
    agent = SimpleNamespace(memory=memory)

    def policy(observations: torch.Tensor) -> None:
        agent.memory.update({2000: None}) if isinstance(agent.memory, dict) else agent.memory.append(2000)

    warnings: list[str] = []
    with preserved_state(nn.Module(), seed=0, policy=policy, warn=warnings.append):
        pass
    assert warnings == []
    with preserved_state(nn.Module(), seed=0, policy=policy, warn=warnings.append):
        policy(torch.zeros(1, 2))
    assert 2000 in memory
    (warning,) = warnings
    assert "'agent.memory' of" in warning
    assert f"{len(memory):,} entries" in warning


def test_lazy_network_that_an_evaluation_initializes_stays_initialized() -> None:
    module = nn.Sequential(nn.LazyLinear(2))
    with preserved_state(module, seed=0):
        module(torch.zeros(1, 3))
    assert module[0].in_features == 3
    assert module(torch.zeros(1, 3)).shape == (1, 2)


def test_parameters_are_not_copied() -> None:
    module = nn.Linear(2, 2)
    module.held = [module.weight]
    with torch.no_grad(), preserved_state(module, seed=0):
        module.weight.fill_(1)
    assert module.weight.sum() == 4


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (np.random.default_rng(3), lambda rng: rng.random()),
        (np.random.PCG64(3), lambda bits: bits.random_raw()),
        (np.random.RandomState(3), lambda rng: rng.random_sample()),
        (random.Random(3), lambda rng: rng.random()),
        (torch.Generator().manual_seed(3), lambda rng: float(torch.rand((), generator=rng))),
    ],
    ids=["numpy", "bits of numpy", "old numpy", "python", "torch"],
)
def test_generators_of_the_policy_continue_where_they_were(generator: Any, draw: Callable[[Any], float]) -> None:
    agent = SimpleNamespace(rng=generator)
    with preserved_state(nn.Module(), seed=0, policy=agent):
        first = draw(generator)
    assert draw(generator) == first


def test_buffers_added_by_an_evaluation_are_removed() -> None:
    module = nn.Module()
    with preserved_state(module, seed=0):
        module.register_buffer("hidden", torch.zeros(8))
    assert list(module.state_dict()) == []


def test_the_largest_buffers_are_only_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_values, "MAX_COPIED_BYTES", 100)
    module = nn.Module()
    for name, size in (("large", 24), ("small", 4), ("unchanged", 30)):
        module.register_buffer(name, torch.zeros(size))
    warnings: list[str] = []
    with preserved_state(module, seed=0, warn=warnings.append):
        module.large.add_(1)
        module.small.add_(1)
    assert (module.small.sum(), module.large.sum()) == (0, 24)
    (warning,) = warnings
    assert "'large' of Module" in warning
    assert "96 bytes" in warning


def test_buffers_of_trainer_and_environment_are_not_visited() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.net = Noisy()

    module = nn.Module()
    module.holder = Trainer()
    with preserved_state(module, seed=0):
        module.holder.net(torch.zeros(1, 2))
    assert module.holder.net.noise[0] != 1


def test_evaluation_in_inference_mode_leaves_usable_buffers() -> None:
    module = nn.Sequential(Noisy(in_place=False), nn.Linear(2, 1))
    with torch.inference_mode(), preserved_state(module, seed=0):
        module(torch.zeros(1, 2))
    assert not module[0].noise.is_inference()
    module(torch.zeros(1, 2)).sum().backward()
