"""Positions and fill levels count where the rows agree with them; ordinary data with numbers of these names do not."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.errors import DatasetError

Arrays = dict[str, Any]
COUNT = 60  # three episodes of 20 steps


def ordinary(count: int = COUNT) -> Arrays:
    return {
        "observations": np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32),
        "actions": np.ones((count, 1), np.float32),
        "rewards": np.arange(count, dtype=np.float32),
        "terminals": np.arange(count) % 20 == 19,
    }


def written(steps: int, capacity: int) -> Arrays:
    """A ring after some steps; step t has observation and reward t + 1; episodes of 5, every second one cut off."""
    names = ("observations", "actions", "rewards", "masks", "dones", "next_observations")
    shapes = ((1,), (1,), (), (), (), (1,))
    held = {name: np.zeros((capacity, *shape), np.float32) for name, shape in zip(names, shapes, strict=True)}
    for step in range(steps):
        is_end, is_cut = step % 5 == 4, step % 10 == 9
        row = (step + 1, 0.5, step + 1, not (is_end and not is_cut), is_end, step + 2)
        for name, value in zip(names, row, strict=True):
            held[name][step % capacity] = value
    return held


ORDINARY: dict[str, Arrays] = {
    "places of a robot": {"pos": np.zeros((COUNT, 3)), "size": np.ones(COUNT), "full": np.zeros(COUNT, bool)},
    "places of a robot, number of rows": {"position": np.zeros((COUNT, 3)), "size": COUNT},
    "task and size of a maze": {"idx": 3, "size": 5},
    "no task": {"idx": -1, "size": 5},
    "bytes of a file": {"pos": 5, "size": 100_000},
    "offsets": {"ptr": np.arange(4), "size": 3},
    "texts": {"pos": "left", "size": "large"},
    "a number and a text": {"idx": 3, "size": "large", "full": "no"},
    "columns of an algorithm": {
        "advantages": np.zeros(COUNT),
        "returns": np.zeros(COUNT),
        "episode_starts": np.arange(COUNT) % 20 == 0,
    },
}


@pytest.mark.parametrize("other", ORDINARY.values(), ids=ORDINARY)
def test_numbers_of_ordinary_data_that_have_the_names_of_positions_change_nothing(
    other: Arrays, tmp_path: Path
) -> None:
    arrays = ordinary()
    np.savez(tmp_path / "a.npz", **arrays, **other)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, value in (arrays | other).items():
            file[key] = value
    for source in (arrays | other, tmp_path / "a.npz", tmp_path / "a.h5"):
        data = open_dataset(source)
        assert data.sample(COUNT, 0).rewards.tolist() == list(range(COUNT))
        assert data.episodes().lengths.tolist() == [20, 20, 20]
        assert not any("buffer" in warning for warning in data.warnings)


def test_number_of_rows_and_of_a_task_are_no_full_buffer_where_its_oldest_row_would_follow_from_the_newest() -> None:
    observations = np.arange(COUNT + 1, dtype=np.float32)[:, None]
    arrays = ordinary() | {"observations": observations[:-1], "next_observations": observations[1:]}
    data = open_dataset(arrays | {"size": COUNT, "idx": 7})
    assert data.sample(COUNT, 0).rewards.tolist() == list(range(COUNT))
    assert not any("buffer" in warning for warning in data.warnings)


@pytest.mark.parametrize("head", ["insert_index", "_insert_index", "pointer", "write_idx", "_top"])
@pytest.mark.parametrize("steps", [12, 33])
def test_positions_of_other_names_are_read(head: str, steps: int) -> None:
    numbers = {head: steps % 20, "size": min(steps, 20), "capacity": 20}
    for buffer in (written(steps, 20), {"dataset_dict": written(steps, 20)}):
        data = open_dataset(SimpleNamespace(**buffer, **numbers))
        first = max(0, steps - 20)
        assert data.sample(20, 0).rewards.tolist() == list(range(first + 1, steps + 1))
        ends = [step for step in range(first, steps) if step % 5 == 4]
        cut_off = [step % 10 == 9 for step in ends]
        assert data.episodes().truncated.tolist()[: len(ends)] == cut_off
        assert data.episodes().terminated.tolist() == [not cut for cut in cut_off] + [False]


def test_fill_level_counts_without_a_position_where_the_rows_behind_it_are_empty() -> None:
    data = open_dataset(SimpleNamespace(**written(12, 20), place=12, size=12))
    assert data.sample(20, 0).rewards.tolist() == list(range(1, 13))
    assert data.episodes().lengths.tolist() == [5, 5, 2]


def test_size_that_is_the_capacity_does_not_make_empty_rows_the_oldest() -> None:
    data = open_dataset(SimpleNamespace(**written(12, 20), ptr=12, size=20))
    assert data.sample(20, 0).rewards.tolist() == list(range(1, 13))
    assert data.warnings == ()


def test_full_buffer_of_any_marks_shows_its_oldest_row_by_next_observations() -> None:
    arrays = written(33, 20)
    not_done = {name: arrays[name] for name in arrays if name not in ("dones", "masks")} | {"not_done": arrays["masks"]}
    for source in (arrays, not_done):
        data = open_dataset(source)
        assert data.sample(20, 0).rewards.tolist() == list(range(14, 34))
        assert any("Only the step before row 13" in warning for warning in data.warnings)


def test_rows_that_were_never_written_are_found_by_next_observations() -> None:
    data = open_dataset(written(12, 20))
    assert data.sample(20, 0).rewards.tolist() == list(range(1, 13))
    assert data.episodes().lengths.tolist() == [5, 5, 2]
    assert any("8 of 20 rows were never written" in warning for warning in data.warnings)


def test_deque_of_transitions_in_an_object_is_read() -> None:
    names = ("observations", "actions", "rewards", "dones")
    rows = [dict(zip(names, ([t], 0.5, t, t % 5 == 4), strict=True)) for t in range(33)]
    data = open_dataset(SimpleNamespace(buffer=deque(rows, maxlen=20), batch_size=4))
    assert data.sample(20, 0).rewards.tolist() == list(range(13, 33))


def test_rows_behind_a_position_that_hold_numbers_are_left_out_with_a_warning() -> None:
    data = open_dataset(ordinary() | {"ptr": 40, "size": 40})
    assert data.sample(COUNT, 0).rewards.tolist() == list(range(40))
    assert any("20 of 60 rows were left out, although" in warning for warning in data.warnings)


def test_settings_of_a_buffer_that_are_no_numbers_are_not_read() -> None:
    settings = {"optimize_memory_usage": np.zeros(4), "handle_timeout_termination": "yes", "env_index": None}
    assert open_dataset(ordinary() | settings | {"pos": 0, "full": True}).num_transitions == COUNT


def test_deeply_nested_facts_of_a_torchrl_folder_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("[" * 100_000)
    with pytest.raises(DatasetError, match="is not complete JSON"):
        open_dataset(tmp_path)
