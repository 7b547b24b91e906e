"""State that users' code keeps elsewhere than in attributes of the module, which an evaluation leaves as it was."""

from __future__ import annotations

import itertools
import weakref
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.testing import CorridorEnv

STEPS_DONE = 0
RNG = np.random.default_rng(0)


def counted() -> int:
    counted.calls += 1
    return counted.calls


counted.calls = 0


class SlottedSchedule:
    """Schedule without a ``__dict__``, whose steps may be unset."""

    __slots__ = ("__private", "latest", "steps")

    def __init__(self) -> None:
        self.steps = self.__private = 0

    def advance(self) -> tuple[int, int]:
        self.steps += 1
        self.__private += 1
        self.latest = self.steps
        return self.steps, self.__private


class History(deque):
    """Container with an attribute of its own."""

    position = 0


def nonlocal_counter() -> Callable[[], int]:
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return count

    return step


class Agent(nn.Module):
    """Agent whose methods change state of every kind and return what they have changed."""

    visits_of_all: ClassVar[dict[int, int]] = {}
    instances_done = 0

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.step, self.env = SlottedSchedule(), nonlocal_counter(), CorridorEnv()
        self.env.action_space.seed(0)
        self.helper = SlottedSchedule()
        self.names = np.array(["left", "right"], dtype="U20")
        self.objects, self.records = np.array([0, None], dtype=object), np.zeros(2, dtype=[("n", "i4"), ("t", "f8")])
        self.counts = {state: np.zeros(2) for state in range(200)}
        self.table, self.bytes, self.numbers = np.zeros(2**18), bytearray(b"\0\0"), array("d", [0.0, 0.0])
        self.epsilon = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.recent, self.betas = History([0], maxlen=3), iter([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        self.memory = Memory()
        self.counter = weakref.ref(self.memory)

    def global_number(self) -> Any:
        global STEPS_DONE  # noqa: PLW0603  # as in PyTorch's tutorial on DQN
        STEPS_DONE += 1
        return STEPS_DONE

    def global_generator(self) -> Any:
        return RNG.random()

    def function_attribute(self) -> Any:
        return counted()

    def class_attribute(self) -> Any:
        type(self).instances_done += 1
        return self.instances_done

    def class_dict(self) -> Any:
        self.visits_of_all[0] = self.visits_of_all.get(0, 0) + 1
        return self.visits_of_all[0]

    def slots(self) -> Any:
        return self.schedule.advance()

    def nonlocal_number(self) -> Any:
        return self.step()

    def space_of_environment(self) -> Any:
        return [int(self.env.action_space.sample()) for _ in range(20)]

    def text_array(self) -> Any:
        self.names[0] += "x"
        return str(self.names[0])

    def object_array(self) -> Any:
        self.objects[0] += 1
        return self.objects[0]

    def structured_array(self) -> Any:
        self.records[1]["t"] += 1
        return float(self.records[1]["t"])

    def one_of_many_arrays(self) -> Any:
        self.counts[150][1] += 1
        return float(self.counts[150][1])

    def two_megabytes(self) -> Any:
        self.table[7] += 1
        return float(self.table[7])

    def bytes_and_numbers(self) -> Any:
        self.bytes[0] += 1
        self.numbers[1] += 1
        return self.bytes[0], self.numbers[1]

    def frozen_parameter(self) -> Any:
        self.epsilon.mul_(0.5)
        return float(self.epsilon)

    def attribute_of_container(self) -> Any:
        self.recent.position += 1
        return self.recent.position

    def iterator(self) -> Any:
        return next(self.betas)

    def weakly_referenced(self) -> Any:
        self.counter().size += 1
        return self.counter().size


class Memory:
    """Object that is only weakly referenced by the policy's code."""

    size = 0


METHODS = [name for name, value in vars(Agent).items() if callable(value) and not name.startswith("_")]


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_changes_continues_as_if_there_had_been_no_evaluation(method: str) -> None:
    agent = Agent()
    act = getattr(agent, method)
    first = act()
    warnings: list[str] = []
    with preserved_state(agent, seed=0, policy=method, warn=warnings.append):
        inside = [act() for _ in range(3)]
    assert first != inside[0]
    assert act() == inside[0]
    assert warnings == []


def test_variables_that_an_evaluation_sets_first_are_not_set_afterwards() -> None:
    agent = Agent()
    with preserved_state(agent, seed=0):
        agent.schedule.advance()
    assert not hasattr(agent.schedule, "latest")


def test_classes_and_counters_of_environments_are_left_alone() -> None:
    class Counting(CorridorEnv):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            type(self).made += 1

    agent = Agent()

    def make_env() -> Counting:
        return Counting()

    agent.env, agent.make_env = Counting(), make_env
    with preserved_state(agent, seed=0):
        agent.make_env()
    assert Counting.made == 2


def test_memory_of_outputs_is_put_back_and_records_of_observations_are_kept() -> None:
    agent = nn.Module()  # as in PyTorch's REINFORCE example, where a later update would use these entries
    agent.saved_log_probs, agent.saved_actions, agent.epsilons = [torch.zeros(1)], [], []
    with preserved_state(agent, seed=0):
        agent.saved_log_probs.append(torch.ones(1))
        agent.saved_actions.append((torch.ones(1), 3))
        agent.epsilons.append(0.5)
    assert (len(agent.saved_log_probs), agent.saved_actions, agent.epsilons) == (1, [], [0.5])


def generator_of_epsilons() -> Iterator[float]:
    epsilon = 1.0
    while True:
        epsilon *= 0.9
        yield epsilon


@pytest.mark.parametrize(
    ("name", "state", "change", "size"),
    [
        ("epsilons", generator_of_epsilons(), next, "a generator"),
        ("count", itertools.count(), next, "a count"),
        ("visits", dict.fromkeys(range(5000), 0), lambda visits: visits.update({3: 1}), "5,000 entries"),
        ("table", np.zeros(2**20), lambda table: table.__setitem__(5, 1.0), "8,388,608 bytes"),
        ("pictures", np.zeros(2**27, np.uint8), lambda pictures: pictures.fill(1), "134,217,728 bytes"),
        ("memory", deque(range(20_000)), lambda memory: memory.append(1), "20,000 entries"),
    ],
)
def test_what_cannot_be_put_back_is_named(name: str, state: Any, change: Callable[[Any], Any], size: str) -> None:
    agent = nn.Module()
    setattr(agent, name, state)
    warnings: list[str] = []
    with preserved_state(agent, seed=0, warn=warnings.append):
        pass
    assert warnings == []
    with preserved_state(agent, seed=0, warn=warnings.append):
        change(state)
    (warning,) = warnings
    assert f"'{name}' of Module ({'20,001 entries' if name == 'memory' else size})" in warning


def test_changed_weights_are_named_together() -> None:
    network = nn.Embedding(4, 2, max_norm=0.1)  # renormalizes its weights in place when it is called
    module = nn.ModuleDict({"one": network, "other": nn.Embedding(4, 2, max_norm=0.1)})
    warnings: list[str] = []
    with preserved_state(module, seed=0, warn=warnings.append):
        for each in module.values():
            each(torch.arange(4))
    (warning,) = warnings
    assert "'one.weight' of ModuleDict (32 bytes), 'other.weight' of ModuleDict (32 bytes)" in warning


def test_gradients_that_a_planning_policy_adds_or_clears_are_as_before() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    gradient = module[0].weight.grad = torch.ones(1, 1)
    with preserved_state(module, seed=0), torch.enable_grad():
        module.zero_grad()
        module(torch.ones(1, 1)).sum().backward()
    assert module[0].weight.grad is gradient
    assert module[1].weight.grad is None


class MergesWeights(nn.Linear):
    """Layer with a low-rank update that is merged into the weight in evaluation mode, as in loralib."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.merged = False

    def train(self, mode: bool = True) -> MergesWeights:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += -1.0 if mode else 1.0
            self.merged = not mode
        return self


def test_weights_that_are_merged_in_evaluation_mode_are_separate_again() -> None:
    module = nn.Sequential(MergesWeights(), nn.Dropout().eval())
    before = module[0].weight.detach().clone()
    with preserved_state(module, seed=0):
        assert module[0].merged
    assert not module[0].merged
    assert torch.allclose(module[0].weight, before, atol=1e-6)
    assert [part.training for part in module] == [True, False]


def test_vector_of_environments_keeps_the_generator_of_its_action_space() -> None:
    agent = nn.Module()
    agent.envs = gym.vector.SyncVectorEnv([CorridorEnv] * 2)
    agent.envs.action_space.seed(0)
    with preserved_state(agent, seed=0):
        inside = agent.envs.action_space.sample().tolist() + agent.envs.action_space.sample().tolist()
    after = agent.envs.action_space.sample().tolist() + agent.envs.action_space.sample().tolist()
    assert after == inside
