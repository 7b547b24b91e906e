"""Transitions and episodes are read by the names of their fields, whatever the order and the kind of object."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque, namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.datasets.formats.records import as_record
from rlwandb_callbacks.errors import DatasetError
from tests.helpers.datasets import Rows

LENGTHS = [3, 4, 2]
COUNT = sum(LENGTHS)
LAST = np.isin(np.arange(COUNT), np.cumsum(LENGTHS) - 1)
STATES = np.arange(2 * COUNT, dtype=np.float32).reshape(COUNT, 2)
NEXT_STATES = STATES + 2  # of the next row, except at ends
ACTIONS = np.arange(COUNT) % 3
REWARDS = np.arange(COUNT, dtype=np.float64)


class Transition(NamedTuple):
    """Of PyTorch's tutorial on DQN."""

    state: Any
    action: Any
    next_state: Any
    reward: Any


class Experience(NamedTuple):
    """Of Lightning's tutorial on DQN."""

    state: Any
    action: Any
    reward: Any
    done: Any
    new_state: Any


Shuffled = namedtuple("Shuffled", ["done", "reward", "next_obs", "act", "obs"])  # noqa: PYI024  # no types


@dataclasses.dataclass
class Step:
    rewards: float
    observations: Any
    actions: int
    terminated: bool


class Slots:
    __slots__ = ("acts", "obs", "rew", "terminal")

    def __init__(self, row: int) -> None:
        self.obs, self.acts, self.rew, self.terminal = STATES[row], ACTIONS[row], REWARDS[row], LAST[row]


class Properties:
    def __init__(self, row: int) -> None:
        self._row = row

    obs = property(lambda self: STATES[self._row])
    action = property(lambda self: ACTIONS[self._row])
    reward = property(lambda self: REWARDS[self._row])
    done = property(lambda self: LAST[self._row])

    def reset(self) -> None:
        raise AssertionError


MAKERS: dict[str, Callable[[int], Any]] = {
    "Lightning's Experience": lambda i: Experience(STATES[i], ACTIONS[i], REWARDS[i], LAST[i], NEXT_STATES[i]),
    "any order": lambda i: Shuffled(LAST[i], REWARDS[i], NEXT_STATES[i], ACTIONS[i], STATES[i]),
    "dataclass": lambda i: Step(REWARDS[i], STATES[i], ACTIONS[i], LAST[i]),
    "namespace": lambda i: SimpleNamespace(reward=REWARDS[i], obs=STATES[i], action=ACTIONS[i], done=LAST[i]),
    "slots": Slots,
    "properties": Properties,
    "tuple (s, a, r, s', done)": lambda i: (STATES[i], ACTIONS[i], REWARDS[i], NEXT_STATES[i], LAST[i]),
    "tuple (s, a, s', r, done)": lambda i: (STATES[i], ACTIONS[i], NEXT_STATES[i], REWARDS[i], LAST[i]),
    "tuple (s, a, r, done, s')": lambda i: (STATES[i], ACTIONS[i], REWARDS[i], LAST[i], NEXT_STATES[i]),
    "list [s, a, r, s', done]": lambda i: [STATES[i], ACTIONS[i], REWARDS[i], NEXT_STATES[i], LAST[i]],
    "tuple (s, a, r, terminated, truncated, info)": lambda i: (
        STATES[i],
        ACTIONS[i],
        REWARDS[i],
        LAST[i],
        False,
        {"TimeLimit.truncated": False},
    ),
    "tuple (s, a, r, done)": lambda i: (STATES[i], ACTIONS[i], REWARDS[i], LAST[i]),
    "tuple (s, a, r, terminated, truncated)": lambda i: (STATES[i], ACTIONS[i], REWARDS[i], LAST[i], False),
    "tuple (s, a, r, terminated, truncated, s')": lambda i: (
        STATES[i], ACTIONS[i], REWARDS[i], LAST[i], False, NEXT_STATES[i],
    ),
}  # fmt: skip


def assert_read(source: Any, lengths: list[int] = LENGTHS) -> None:
    data = open_dataset(source)
    found = data.sample(COUNT, seed=0)
    np.testing.assert_array_equal(found.observations, STATES)
    np.testing.assert_array_equal(found.actions, ACTIONS)
    np.testing.assert_array_equal(found.rewards, REWARDS)
    assert data.episodes().lengths.tolist() == lengths
    assert data.warnings == ()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_transitions_of_any_kind(make: Callable[[int], Any]) -> None:
    items = [make(row) for row in range(COUNT)]
    edges = np.cumsum([0, *LENGTHS])
    for source in (items, deque(items, maxlen=100), Rows(items)):
        assert_read(source)
        assert open_dataset(source).episodes().terminated.all()
    assert_read([items[low:high] for low, high in itertools.pairwise(edges)])


def test_the_memory_of_pytorchs_tutorial_ends_where_the_next_state_is_none() -> None:
    memory = deque(
        Transition(
            torch.as_tensor(STATES[row])[None],
            torch.tensor([[ACTIONS[row]]]),
            None if row in (2, 8) else torch.as_tensor(NEXT_STATES[row] + (100 if row == 6 else 0))[None],
            torch.tensor([REWARDS[row]]),
        )
        for row in range(COUNT)
    )
    assert_read(memory)
    found = open_dataset(memory).episodes()
    assert found.terminated.tolist() == [True, False, True]
    assert found.truncated.tolist() == [False, True, False]  # its next state is not the state of the next row
    assert found.returns.tolist() == [3.0, 18.0, 15.0]


def test_transitions_in_random_order_have_no_ends() -> None:
    order = np.random.default_rng(0).permutation(COUNT)
    data = open_dataset([Transition(STATES[i], ACTIONS[i], NEXT_STATES[i], REWARDS[i]) for i in order])
    assert data.num_episodes == 1
    assert data.warnings[0].startswith("No step is marked as the end of an episode")


@pytest.mark.parametrize("extra", [0, 1], ids=["", "last observation"])
def test_objects_with_the_arrays_of_one_episode(extra: int) -> None:
    # imitation's Trajectory and d3rlpy's Episode have one mark for the whole episode.
    edges = np.cumsum([0, *LENGTHS])
    assert_read(
        [
            SimpleNamespace(
                obs=np.concatenate([STATES[low:high], np.zeros((extra, 2), np.float32)]),
                acts=ACTIONS[low:high],
                rews=REWARDS[low:high],
                terminal=low == 0,
                infos=None,
            )
            for low, high in itertools.pairwise(edges)
        ]
    )


def test_named_tuple_of_arrays() -> None:
    arrays = namedtuple("Arrays", ["rewards", "dones", "actions", "observations"])  # noqa: PYI024
    assert_read(arrays(REWARDS, LAST, ACTIONS, STATES))


def test_structured_array() -> None:
    dtype = [("obs", "f4", (2,)), ("action", "i8"), ("reward", "f8"), ("done", "?")]
    rows = [(STATES[i], ACTIONS[i], REWARDS[i], LAST[i]) for i in range(COUNT)]
    assert_read(np.array(rows, dtype=dtype))


def test_names_that_are_not_known_are_not_guessed() -> None:
    strange = namedtuple("Strange", ["before", "chosen", "gained", "after", "over"])  # noqa: PYI024
    with pytest.raises(DatasetError, match="Keys found: before, chosen, gained, after, over") as caught:
        open_dataset([strange(STATES[0], 0, 1.0, STATES[1], False)])
    assert "for rewards: rewards, reward" in str(caught.value)
    assert as_record(object()) is None


class Frame:
    """Behaves as a DataFrame of pandas: columns by name, cells of objects, and no rows by number."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = {name: Series(cells) for name, cells in columns.items()}
        self.columns = list(columns)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def keys(self) -> list[str]:
        return self.columns

    def to_numpy(self) -> Any:
        raise AssertionError


class Series:
    def __init__(self, cells: Any) -> None:
        self._cells = cells

    def to_numpy(self) -> Any:
        cells = np.empty(COUNT, dtype=object)
        for index, cell in enumerate(self._cells):
            cells[index] = cell
        return self._cells if isinstance(self._cells, np.ndarray) and self._cells.ndim == 1 else cells


@pytest.mark.parametrize(
    "observations",
    [
        {"obs": STATES},
        {"obs": STATES.tolist()},
        {"obs_0": STATES[:, 0], "obs_1": STATES[:, 1]},
        {"state[0]": STATES[:, 0], "state[1]": STATES[:, 1]},
    ],
    ids=["arrays in cells", "lists in cells", "a column per number", "brackets"],
)
def test_data_frame(observations: dict[str, Any]) -> None:
    ids = np.repeat(np.arange(3), LENGTHS)
    names = [f"walk {index}" for index in ids]
    for marks in ({"done": LAST}, {"episode": ids}, {"episode": names}):
        assert_read(Frame({**observations, "action": ACTIONS, "reward": REWARDS, **marks}))


def test_columns_of_a_data_frame_are_in_natural_order() -> None:
    wide = np.arange(12.0 * COUNT).reshape(COUNT, 12)
    columns = {f"obs_{index}": wide[:, index] for index in reversed(range(12))}
    data = open_dataset(Frame({**columns, "action": ACTIONS, "reward": REWARDS}))
    np.testing.assert_array_equal(data.sample(COUNT, 0).observations, wide)


def test_data_frame_without_rewards() -> None:
    with pytest.raises(DatasetError, match=r"has no rewards\. Keys found: action, obs"):
        open_dataset(Frame({"obs": STATES, "action": ACTIONS}))
