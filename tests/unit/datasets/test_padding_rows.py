"""Rows of Minari's Arrow and Parquet files that only hold the last observation of an episode are no steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.datasets import OfflineDataset, open_dataset

LENGTHS = [20, 7, 3]
Rows = list[dict[str, Any]]


class HuggingFaceDataset:
    """Rows as ``datasets.load_dataset("parquet", …)`` gives them: ``ds[0]`` is a dict, ``ds["actions"]`` a column."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: int | str) -> Any:
        return [row[key] for row in self._rows] if isinstance(key, str) else self._rows[key]


def episode(index: int, length: int, *, first_action: int = 1, reward: float = 1.0) -> Rows:
    """Steps of an episode in Minari's columns; every second one is cut off, the others are terminal."""
    return [
        {
            "observations": [float(step), float(index)],
            "actions": first_action if step == 0 else step % 3,
            "rewards": reward if step else 1.0,
            "terminations": step == length - 1 and index % 2 == 0,
            "truncations": step == length - 1 and index % 2 == 1,
        }
        for step in range(length)
    ]


def padded(steps: Rows) -> Rows:
    """Adds the row that Minari 0.5.4 writes behind the steps."""
    last = {"observations": [99.0, 99.0], "actions": 0, "rewards": 0.0, "terminations": False, "truncations": False}
    return [*steps, last]


def columns(rows: Rows) -> dict[str, Any]:
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


EPISODES = [padded(episode(index, length)) for index, length in enumerate(LENGTHS)]
JOINED = [row for rows in EPISODES for row in rows]
IDS = np.repeat(np.arange(3), [len(rows) for rows in EPISODES])
SOURCES: dict[str, Callable[[], Any]] = {
    "Hugging Face": lambda: HuggingFaceDataset(JOINED),
    "arrays": lambda: columns(JOINED),
    "arrays with ids": lambda: columns(JOINED) | {"episode_id": IDS},
    "rows": lambda: JOINED,
    "rows by episode": lambda: EPISODES,
    "arrays by episode": lambda: [columns(rows) for rows in EPISODES],
}


def assert_right(data: OfflineDataset) -> None:
    found = data.episodes()
    assert found.lengths.tolist() == LENGTHS
    assert found.returns.tolist() == LENGTHS
    assert found.terminated.tolist() == [True, False, True]
    assert found.truncated.tolist() == [False, True, False]
    assert 99 not in data.sample(99, seed=0).observations


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_rows_of_padding_are_left_out_and_reported(make: Callable[[], Any]) -> None:
    data = open_dataset(make())
    assert_right(data)
    (warning,) = data.warnings
    assert "3 of 33 rows were left out" in warning
    assert "Minari's Arrow and Parquet files" in warning


@pytest.mark.parametrize("rows", [EPISODES[1], JOINED[:30]], ids=["one episode", "a part of a split"])
def test_rows_of_padding_are_left_out_of_a_part_of_the_data(rows: Rows) -> None:
    data = open_dataset(HuggingFaceDataset(rows))
    assert data.episodes().lengths.tolist() == ([7] if len(rows) == 8 else [20, 7, 1])
    assert not data.episodes().truncated[-1] or len(rows) == 8


@pytest.mark.parametrize("rename", [False, True])
def test_first_steps_that_look_like_padding_are_kept(rename: bool) -> None:
    rows = [row for index in range(4) for row in episode(index, 5, first_action=0, reward=0.0)]
    for row in rows[::5]:
        row["rewards"] = 0.0  # as at the start of FrozenLake, with a policy that always begins with action 0
    arrays = columns(rows)
    if rename:
        arrays = {"terminals": arrays.pop("terminations"), "timeouts": arrays.pop("truncations")} | arrays
    data = open_dataset(arrays)
    assert data.episodes().lengths.tolist() == [5] * 4
    assert data.warnings == ()


def of_one_start(rename: bool = False) -> dict[str, Any]:
    """Episodes that all begin with the same observation, action 0 and reward 0; the last one has this step only."""
    rows = [row for index in range(4) for row in episode(index, 5)]
    for row in rows[::5]:
        row |= {"observations": [0.0, 0.0], "actions": 0, "rewards": 0.0}
    arrays = columns(rows[:16])
    if rename:
        arrays = {"terminals": arrays.pop("terminations"), "timeouts": arrays.pop("truncations")} | arrays
    return arrays


@pytest.mark.parametrize("rename", [False, True])
def test_first_steps_are_kept_where_the_last_episode_has_one_step(rename: bool) -> None:
    data = open_dataset(of_one_start(rename))
    assert data.episodes().lengths.tolist() == [5, 5, 5, 1]
    assert data.warnings == ()


def test_first_steps_are_kept_where_the_data_begin_within_an_episode() -> None:
    part = {key: array[2:] for key, array in of_one_start(rename=True).items()}
    assert open_dataset(part).episodes().lengths.tolist() == [3, 5, 5, 1]


def test_rows_with_next_observations_are_steps() -> None:
    arrays = columns(JOINED)
    data = open_dataset(arrays | {"next_observations": arrays["observations"] + 1})
    assert data.num_transitions == len(JOINED)
