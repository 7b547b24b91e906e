"""Copies of iterators, and evaluations that advance iterators."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.policies.iterators import copied_iterator
from rlwandb_callbacks.policies.reachable import reachable
from rlwandb_callbacks.policies.saved_values import Snapshot

MAKERS: dict[str, Callable[[], Any]] = {
    "list": lambda: iter([10, 11, 12, 13, 14]),
    "reversed": lambda: reversed([10, 11, 12, 13, 14]),
    "text": lambda: iter("abcde"),
    "array": lambda: iter(np.arange(5)),
    "dict": lambda: iter(dict.fromkeys(range(5))),
    "set": lambda: iter({10, 11, 12, 13, 14}),
    "deque": lambda: iter(deque(range(5))),
    "zip": lambda: zip(range(5), [5, 6, 7, 8, 9]),  # noqa: B905  # also without strict
    "strict zip": lambda: zip(range(5), [5, 6, 7, 8, 9], strict=True),
    "map": lambda: map(str, [1, 2, 3, 4, 5]),
    "enumerate": lambda: enumerate("abcde"),
    "filter": lambda: filter(None, [1, 0, 2, 3, 0, 4, 5]),
    "count": lambda: itertools.count(3, 2),
    "cycle in its first round": lambda: itertools.cycle([0, 1, 2, 3, 4, 5, 6]),
    "cycle in its second round": lambda: itertools.cycle([0, 1]),
    "chain": lambda: itertools.chain([1, 2, 3], [4, 5]),
    "islice": lambda: itertools.islice(itertools.count(), 1, 9),
    "accumulate": lambda: itertools.accumulate([1, 2, 3, 4, 5]),
    "product": lambda: itertools.product([0, 1], [0, 1, 2]),
    "repeat": lambda: itertools.repeat(1, 5),
    "nested": lambda: enumerate(zip(itertools.cycle([0, 1, 2]), map(abs, itertools.count(-3)))),
}
STARTED = 2  # entries that are taken before a copy or an evaluation


def values(iterator: Any) -> list[str]:
    return [str(each) for each in itertools.islice(iterator, 3)]


def started(name: str) -> Any:
    iterator = MAKERS[name]()
    for _ in range(STARTED):
        next(iterator)
    return iterator


@pytest.mark.parametrize("name", MAKERS)
def test_copy_continues_where_the_iterator_is_and_leaves_it_there(name: str) -> None:
    expected, iterator = values(started(name)), started(name)
    first, second = copied_iterator(iterator), copied_iterator(iterator)
    assert values(first) == expected
    assert values(second) == expected
    assert values(iterator) == expected


@pytest.mark.parametrize("name", MAKERS)
def test_iterator_that_an_evaluation_advances_continues_where_it_was(name: str) -> None:
    module: Any = nn.Module()
    module.items, module.nested, warnings = started(name), [started(name)], list[str]()
    before = module.items
    with preserved_state(module, seed=0, warn=warnings.append):
        assert values(module.items) == values(started(name))
        values(module.nested[0])
    assert module.items is before
    assert values(module.items) == values(module.nested[0]) == values(started(name))
    assert warnings == []


def test_iterator_of_a_closure_continues_where_it_was() -> None:
    phases = itertools.cycle([0, 1, 2])

    def policy() -> int:
        return next(phases)

    with preserved_state(nn.Module(), seed=0, policy=policy):
        assert [policy(), policy()] == [0, 1]
    assert policy() == 0


def test_cycle_that_cannot_be_set_back_keeps_its_order() -> None:
    module: Any = nn.Module()
    module.phases = itertools.cycle([0, 1, 2])
    state = Snapshot(reachable(module))
    assert [next(module.phases), next(module.phases)] == [0, 1]
    state.restore()
    assert list(itertools.islice(module.phases, 7)) == [2, 0, 1, 2, 0, 1, 2]


def test_advanced_iterator_that_cannot_be_replaced_is_named() -> None:
    warnings = list[str]()
    policy = functools.partial(next, itertools.count())
    with preserved_state(nn.Module(), seed=0, policy=policy, warn=warnings.append):
        pass
    assert warnings == []
    with preserved_state(nn.Module(), seed=0, policy=policy, warn=warnings.append):
        policy()
    (message,) = warnings
    assert "of partial (a count)" in message
