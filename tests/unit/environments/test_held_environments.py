"""Environments are found wherever a module holds them, whatever else it holds."""

from __future__ import annotations

from collections import ChainMap, OrderedDict, UserDict, deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import NormalizeObservation
from omegaconf import OmegaConf

from rlwandb_callbacks.environments.held_environments import MAX_OBJECTS, held_environments
from rlwandb_callbacks.environments.statistics import training_statistics


class ClosedDatabase(Mapping[str, Any]):
    """Mapping that can be read no longer."""

    def __getitem__(self, key: str) -> Any:
        raise OSError("closed")

    def __len__(self) -> int:
        raise OSError("closed")

    def __iter__(self) -> Iterator[str]:
        raise OSError("closed")


class UnreadableList(list[Any]):
    """List that refuses to be iterated."""

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("locked")


class UnreadableEnv(gym.Env[Any, Any]):
    """Environment whose running statistics have no numbers yet."""

    obs_rms = SimpleNamespace(mean=None, var=None, count=None)


UNREADABLE = [
    OmegaConf.create({"lr": "???", "name": "${hydra:job.name}", "unset": "${oc.env:NO_SUCH_VARIABLE}"}),
    ClosedDatabase(),
    UnreadableList([1]),
    UnreadableEnv(),
]


@pytest.mark.parametrize("value", UNREADABLE, ids=lambda value: type(value).__name__)
def test_what_cannot_be_read_does_not_hide_an_environment(value: Any) -> None:
    env = NormalizeObservation(gym.make("CartPole-v1"))
    for _ in range(20):
        env.reset()
    module = SimpleNamespace(first=value, agent=SimpleNamespace(cfg=value, algo=SimpleNamespace(env=env)))
    assert ("self.agent.algo.env", env) in list(held_environments(module, "self"))
    name, statistics = training_statistics(module) or ("", None)
    assert name == "self.agent.algo.env"
    assert np.array_equal(getattr(statistics, "mean", None), env.obs_rms.mean)


class Counted:
    """What the containers of this module read."""

    reads = 0

    @classmethod
    def read(cls) -> Any:
        cls.reads += 1
        return SimpleNamespace()


class Files(Mapping[int, Any]):
    """Mapping that loads a file for each value."""

    def __getitem__(self, key: int) -> Any:
        return Counted.read()

    def __len__(self) -> int:
        return 1_000

    def __iter__(self) -> Iterator[int]:
        return iter(range(1_000))


class LazyDict(dict[int, Any]):
    """Dict that makes its values when they are read."""

    def __getitem__(self, key: int) -> Any:
        return Counted.read()

    def items(self) -> Any:
        return ((key, self[key]) for key in self)


class LazyList(list[int]):
    """List that makes its values when they are read."""

    def __iter__(self) -> Iterator[Any]:
        return (Counted.read() for _ in range(len(self)))


LAZY = [Files(), LazyDict(dict.fromkeys(range(1_000))), LazyList(range(1_000))]


@pytest.mark.parametrize("value", LAZY, ids=lambda value: type(value).__name__)
def test_collections_of_users_are_not_read(value: Any) -> None:
    Counted.reads = 0
    assert list(held_environments(SimpleNamespace(data=value, agent=SimpleNamespace(data=value)), "self")) == []
    assert Counted.reads == 0


class Pool(Mapping[str, Any]):
    """Mapping over environments in an attribute."""

    def __init__(self, **envs: Any) -> None:
        self.members = envs

    def __getitem__(self, key: str) -> Any:
        return self.members[key]

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)


class Named(dict[str, Any]):
    """Dict of a user, as of EasyDict."""


class Pair(NamedTuple):
    """Named tuple of a user."""

    main: Any


HOLDING: dict[str, tuple[Any, str]] = {
    "dict": (dict, "self.held['main']"),
    "subclass of dict": (Named, "self.held['main']"),
    "OrderedDict": (OrderedDict, "self.held['main']"),
    "read-only dict": (lambda **held: MappingProxyType(held), "self.held['main']"),
    "UserDict": (UserDict, "self.held.data['main']"),
    "ChainMap": (lambda **held: ChainMap({}, held), "self.held.maps[1]['main']"),
    "mapping": (Pool, "self.held.members['main']"),
    "set": (lambda **held: set(held.values()), "self.held[0]"),
    "deque": (lambda **held: deque(held.values()), "self.held[0]"),
    "namedtuple": (Pair, "self.held[0]"),
}


@pytest.mark.parametrize("kind", HOLDING)
def test_environments_are_found_in_collections(kind: str) -> None:
    make, path = HOLDING[kind]
    env = gym.make("CartPole-v1")
    assert list(held_environments(SimpleNamespace(held=make(main=env)), "self")) == [(path, env)]


def test_search_ends_in_an_object_with_very_many_attributes() -> None:
    huge = SimpleNamespace(**{f"transition_{index}": [index] for index in range(3 * MAX_OBJECTS)})
    env = gym.make("CartPole-v1")
    module = SimpleNamespace(env=env, replay=huge, last=SimpleNamespace(env=gym.make("CartPole-v1")))
    assert list(held_environments(module, "self")) == [("self.env", env), ("self.last.env", module.last.env)]
