"""Policies that keep state in Python attributes: played as if each environment had a policy of its own."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import evaluated
from random_env import RandomEnv, returns_alone
from torch import nn

from rlwandb_callbacks.errors import PolicyError

CHUNK = 4


class ChunkEnv(RandomEnv):
    """Environment whose reward is the product of action and step; the seed sets the length."""

    def __init__(self) -> None:
        super().__init__(observations=2, actions=1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.length = 5 + (seed * 3) % 4
        return super().reset(seed=seed)

    def reward(self, action: Any) -> float:
        return float(action[0] * self.steps)


def chunk_of(observations: torch.Tensor) -> torch.Tensor:
    """Predicts the actions of the next steps: ``[steps, B, 1]``."""
    return torch.stack([observations[:, :1] * (step + 1) for step in range(CHUNK)])


class Queue(nn.Module):
    """As the ACT policy of LeRobot: predicts several actions, and answers from a queue until it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.reset()

    def reset(self) -> None:
        self._action_queue: deque[torch.Tensor] = deque(maxlen=CHUNK)

    def select_action(self, observations: torch.Tensor) -> torch.Tensor:
        if len(self._action_queue) == 0:
            self._action_queue.extend(self.scale * chunk_of(observations))
        return self._action_queue.popleft()

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.select_action(observations)


class QueueWithoutReset(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.queue: list[torch.Tensor] = []

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        if not self.queue:
            self.queue = list(chunk_of(observations))
        return self.queue.pop(0)


class ChunkAndIndex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.chunk: torch.Tensor | None = None
        self.index = 0

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        if self.index % CHUNK == 0:
            self.chunk = chunk_of(observations)
        self.index += 1
        return self.chunk[(self.index - 1) % CHUNK]


class PlainQueue:
    """A policy that is no network, with its state in an object of its own."""

    class Memory:
        def __init__(self) -> None:
            self.actions: list[torch.Tensor] = []

    def __init__(self) -> None:
        self.memory = PlainQueue.Memory()

    def reset(self) -> None:
        self.memory.actions.clear()

    def act(self, observations: torch.Tensor) -> torch.Tensor:
        if not self.memory.actions:
            self.memory.actions.extend(chunk_of(observations))
        return self.memory.actions.pop(0)


class Memory(nn.Module):
    """Keeps the sum of the observations of an episode in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.total: torch.Tensor | None = None

    def reset(self) -> None:
        self.total = None

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        self.total = observations[:, :1] if self.total is None else self.total + observations[:, :1]
        return self.total.clone()


def evaluate(policy: Any, **settings: Any) -> tuple[list[float], list[str]]:
    episodes, messages = evaluated(policy, env=ChunkEnv, episodes=6, **settings)
    return [episode.total_return for episode in episodes], messages


def expected_returns(make_policy: Any) -> list[float]:
    return returns_alone(ChunkEnv, make_policy, 6)


class Delegating(nn.Module):
    """Has a policy with a queue inside, and one in an object that is no network."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.plain = Queue(), PlainQueue()

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.inner(observations)

    def act(self, observations: torch.Tensor) -> torch.Tensor:
        return self.plain.act(observations)


@pytest.mark.parametrize("num_envs", [None, 1, 4])
@pytest.mark.parametrize(
    ("make", "method"),
    [
        (Queue, None),
        (Queue, "select_action"),
        (PlainQueue, "act"),
        (Memory, None),
        (Delegating, None),
        (Delegating, "act"),
    ],
)
def test_each_episode_has_its_own_queue(make: Any, method: str | None, num_envs: int | None) -> None:
    policy = make()
    expected = expected_returns(lambda: getattr(make(), method) if method else make())
    returns, messages = evaluate(getattr(policy, method) if method else policy, num_envs=num_envs)
    assert returns == pytest.approx(expected, abs=1e-4)
    assert messages == []


@pytest.mark.parametrize("num_envs", [None, 1, 4])
@pytest.mark.parametrize("make", [QueueWithoutReset, ChunkAndIndex])
def test_state_without_reset_starts_as_it_was_at_the_start(make: Any, num_envs: int | None) -> None:
    returns, messages = evaluate(make(), num_envs=num_envs)
    assert returns == pytest.approx(expected_returns(make), abs=1e-4)
    assert len(messages) == 1
    assert "no method reset()" in messages[0]
    assert ("`queue`" if make is QueueWithoutReset else "`chunk`, `index`") in messages[0]


@pytest.mark.parametrize("make", [Queue, Delegating])
def test_queue_of_a_training_rollout_is_as_before(make: Any) -> None:
    policy = make()
    policy(torch.ones(1, 2))
    queue = policy._action_queue if make is Queue else policy.inner._action_queue
    before = [action.clone() for action in queue]
    returns, _ = evaluate(policy, num_envs=None)
    assert returns == pytest.approx(expected_returns(Queue), abs=1e-4)
    assert (policy._action_queue if make is Queue else policy.inner._action_queue) is queue
    assert (
        [action.tolist() for action in queue] == [action.tolist() for action in before] == [[[2.0]], [[3.0]], [[4.0]]]
    )


class QueueInPlace(QueueWithoutReset):
    """Has actions left when an episode of eight steps ends."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        if not self.queue:
            self.queue.extend(chunk_of(observations)[:3])
        return self.queue.pop(0)


@pytest.mark.parametrize("num_envs", [1, 4])
def test_queue_that_an_evaluation_fills_in_place_is_empty_again(num_envs: int) -> None:
    policy = QueueInPlace()
    queue = policy.queue
    returns, _ = evaluate(policy, num_envs=num_envs)
    assert returns == pytest.approx(expected_returns(QueueInPlace), abs=1e-4)
    assert policy.queue is queue
    assert queue == []


class NewMemory(PlainQueue):
    """Replaces the object that holds its state when an episode starts."""

    def reset(self) -> None:
        self.memory = PlainQueue.Memory()


class WrapsQueue:
    """Has no method reset, in contrast to the object that it calls."""

    def __init__(self) -> None:
        self.agent = PlainQueue()

    def __call__(self, observations: torch.Tensor) -> torch.Tensor:
        return self.agent.act(observations)


PLAYER = PlainQueue()


def plays_a_global_object(observations: torch.Tensor) -> torch.Tensor:
    return PLAYER.act(observations)


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize(
    "make", [lambda: NewMemory().act, WrapsQueue, lambda: plays_a_global_object], ids=["new object", "inside", "global"]
)
def test_state_of_objects_in_the_policy_is_that_of_an_episode(make: Any, num_envs: int) -> None:
    PLAYER.reset()
    returns, messages = evaluate(make(), num_envs=num_envs)
    assert returns == pytest.approx(expected_returns(lambda: PlainQueue().act), abs=1e-4)
    assert messages == []
    assert PLAYER.memory.actions == []


def test_method_of_the_module_and_its_other_attributes() -> None:
    module = Queue()
    module.history = []
    assert evaluate("select_action", num_envs=4, module=module)[0] == pytest.approx(expected_returns(Queue), abs=1e-4)
    assert len(module._action_queue) == 0


class Counting(nn.Module):
    """Counts its calls for a schedule of exploration, and logs them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps_done, self.log, self.last = 0, [], None

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        self.steps_done += 1
        self.log.append(len(observations))
        self.last = observations
        return observations[:, :1]


def test_counter_is_put_back_and_a_log_is_kept() -> None:
    policy = Counting()
    policy(torch.ones(1, 2))
    last = policy.last
    _, messages = evaluate(policy, num_envs=None)
    assert messages == []
    assert policy.steps_done == 1
    assert policy.last is last
    assert set(policy.log) == {1, 6}, "the calls of the evaluation, not those of the dry run"


def test_epsilon_greedy_policy_keeps_its_schedule() -> None:
    class Explorer(Counting):
        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            explores = random.random() < 0.9 * 0.5 ** (self.steps_done / 1000)
            self.steps_done += 1
            return torch.full((len(observations), 1), random.random()) if explores else observations[:, :1]

    policy = Explorer()
    policy.steps_done = 100
    _, messages = evaluate(policy, num_envs=None)
    assert policy.steps_done == 100
    assert len(messages) == 1
    assert "samples by itself" in messages[0]


def test_state_where_it_cannot_be_put_back_raises_with_the_protocol() -> None:
    queue: list[torch.Tensor] = []

    def policy(observations: torch.Tensor) -> torch.Tensor:
        if not queue:
            queue.extend(chunk_of(observations))
        return queue.pop(0)

    with pytest.raises(PolicyError, match=r"keeps state .*\(a global variable, a closure.*state=None"):
        evaluate(policy, num_envs=None)


def test_queue_that_is_not_empty_and_has_no_reset_raises_with_the_protocol() -> None:
    policy = QueueWithoutReset()
    policy(torch.ones(1, 2))
    with pytest.raises(PolicyError, match=r"keeps state in `queue`\..*policy\(observations, state=None\)"):
        evaluate(policy, num_envs=None)
    assert len(policy.queue) == CHUNK - 1


def test_reset_that_deals_with_environments_is_not_called() -> None:
    class Agent(Queue):
        def reset(self) -> None:
            super().reset()
            self.env = "reset"

    policy = Agent()
    policy.env = "in an episode"
    assert evaluate(policy, num_envs=None)[0] == pytest.approx(expected_returns(Queue), abs=1e-4)
    assert policy.env == "in an episode"


def test_private_generator_is_put_back() -> None:
    class Sampler:
        def __init__(self) -> None:
            self.rng = np.random.default_rng(3)

        def __call__(self, observations: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(self.rng.normal(size=(len(observations), 1)))

    policy, other = Sampler(), Sampler()
    assert evaluate(policy, num_envs=None, deterministic=False)[1] == []
    assert "samples by itself" in evaluate(policy, num_envs=None)[1][0]
    assert policy.rng.normal() == other.rng.normal()
