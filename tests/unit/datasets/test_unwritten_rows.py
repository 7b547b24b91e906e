"""Rows of preallocated buffers that were never written are left out; what may be data is kept and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from rlwandb_callbacks.maps.statistics import dataset_statistics

WRITTEN, CAPACITY = 115, 1_000
ENDS = [39, 79]  # the third episode is open


def buffer(fill: float = 0.0, **changed: Any) -> dict[str, Any]:
    """A buffer of 1,000 rows with 115 written ones: episodes of 40, 40 and 35 steps with rewards 1, 2 and 3."""
    rng = np.random.default_rng(0)
    arrays = {
        "observations": np.full((CAPACITY, 3), fill, np.float32),
        "actions": np.full((CAPACITY, 2), fill, np.float32),
        "rewards": np.full(CAPACITY, fill, np.float32),
        "dones": np.zeros(CAPACITY, np.float32),
    }
    arrays["observations"][:WRITTEN] = rng.normal(size=(WRITTEN, 3))
    arrays["actions"][:WRITTEN] = rng.normal(size=(WRITTEN, 2))
    arrays["rewards"][:WRITTEN] = np.repeat([1, 2, 3], 40)[:WRITTEN]
    arrays["dones"][ENDS] = 1
    return {**arrays, **changed}


def assert_written(data: OfflineDataset) -> None:
    assert data.num_transitions == WRITTEN
    found = data.episodes()
    assert found.lengths.tolist() == [40, 40, 35]
    assert found.returns.tolist() == [40.0, 80.0, 105.0]
    assert data.sample(CAPACITY, 0).rows.tolist() == list(range(WRITTEN))
    assert any("885 of 1,000 rows were never written" in warning for warning in data.warnings)


@pytest.mark.parametrize("fill", [0.0, np.nan], ids=["zeros", "NaN, as skrl's"])
def test_unwritten_rows_are_left_out_of_every_container(fill: float, write_hdf5: Any, tmp_path: Path) -> None:
    arrays = buffer(fill)
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    for source in (arrays, tmp_path / "a.npz", write_hdf5(arrays)):
        assert_written(open_dataset(source))
        with open_dataset(source) as data:
            assert_written(data)


def test_not_done_is_zero_in_unwritten_rows() -> None:
    arrays = buffer()
    arrays["not_done"] = np.zeros((CAPACITY, 1))
    arrays["not_done"][:WRITTEN, 0] = 1 - arrays.pop("dones")[:WRITTEN]
    assert_written(open_dataset(arrays))


def test_chunk_of_dreamer_holds_as_many_rows_as_its_name_says(tmp_path: Path) -> None:
    arrays = {name: array for name, array in buffer().items() if name != "dones"}
    flags = np.full(CAPACITY, 7, np.uint8)  # memory that was not set
    flags[:WRITTEN] = np.isin(np.arange(WRITTEN), ENDS)
    arrays |= {"is_last": flags, "is_terminal": flags, "image": arrays.pop("observations")}
    path = tmp_path / "20261128T101500F123456-5zY3Xa-0Kq9Lm-115.npz"
    np.savez(path, **arrays)
    data = open_dataset(path)
    assert data.episodes().lengths.tolist() == [40, 40, 35]
    assert data.episodes().terminated.tolist() == [True, True, False]
    assert data.warnings == ()


def test_statistics_and_saved_data_hold_the_written_rows_only(tmp_path: Path) -> None:
    data = open_dataset(buffer())
    statistics = dataset_statistics(data.episodes(), data.sample(CAPACITY, 0))
    assert statistics["dataset/return_mean"].value == 75  # type: ignore[union-attr]
    assert statistics["dataset/reward_min"].value == 1  # type: ignore[union-attr]
    data.save(tmp_path / "b.npz")
    again = open_dataset(tmp_path / "b.npz")
    assert again.episodes().lengths.tolist() == [40, 40, 35]
    assert again.episodes().terminated.tolist() == [True, True, False]
    assert again.warnings == ()


def padded(lengths: list[int], longest: int) -> dict[str, Any]:
    """Episodes that are filled up with zeros to the length of the longest, without marks."""
    is_step = np.concatenate([np.arange(longest) < length for length in lengths])
    count = len(is_step)
    observations = np.random.default_rng(0).normal(size=(count, 3)) * is_step[:, None]
    return {"observations": observations, "actions": np.zeros(count, int), "rewards": 1.0 * is_step}


@pytest.mark.parametrize("ids", [{}, {"episode_ids": np.repeat(np.arange(4), 5)}], ids=["marks", "marks and ids"])
def test_padding_behind_the_mark_of_every_episode_is_left_out(ids: dict[str, Any]) -> None:
    lengths = [5, 3, 4, 1]
    last = np.isin(np.arange(20), np.arange(4) * 5 + lengths - 1)
    data = open_dataset(padded(lengths, 5) | {"dones": last} | ids)
    assert data.episodes().lengths.tolist() == lengths
    assert data.episodes().terminated.all()
    assert any("7 of 20 rows were never written" in warning for warning in data.warnings)


def test_zeros_at_ends_of_episodes_that_only_ids_mark_are_kept_and_reported() -> None:
    data = open_dataset(padded([20, 8, 5, 20], 20) | {"episode_ids": np.repeat(np.arange(4), 20)})
    assert data.episodes().lengths.tolist() == [20] * 4
    (warning,) = data.warnings
    assert warning.startswith("27 of 80 rows hold only 0, many in a row. They count as steps.")


def environments(ends: list[int]) -> dict[str, Any]:
    """Buffers of 100 rows with 24 written ones, one environment behind the other; 1 at the rows of ``ends``."""
    parts = [{name: array[:100].copy() for name, array in buffer(dones=np.zeros(CAPACITY)).items()} for _ in range(3)]
    for part in parts:
        part["dones"][ends] = 1
        for array in part.values():
            array[24:] = 0
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_unwritten_rows_behind_each_of_several_environments_are_left_out() -> None:
    data = open_dataset(environments([9, 19]))
    assert data.episodes().lengths.tolist() == [10, 10, 4] * 3
    assert data.episodes().terminated.tolist() == [True, True, False] * 3
    assert any("228 of 300 rows were never written" in warning for warning in data.warnings)


def test_zeros_behind_only_some_of_several_environments_are_kept_and_reported() -> None:
    arrays = environments([9, 19])
    full = np.random.default_rng(0).normal(size=(100, 3))
    arrays["observations"][100:200], arrays["rewards"][100:200] = full, 1
    data = open_dataset(arrays)
    assert data.num_transitions == 300
    assert any("76 of 300 rows hold only 0, many in a row." in warning for warning in data.warnings)


def test_a_long_tail_of_zeros_is_reported_where_zeros_are_also_states() -> None:
    arrays = {name: array[:100] for name, array in buffer().items()}
    for array in arrays.values():
        array[24:] = 0
    arrays["observations"][[0, 10]] = 0  # the agent starts there
    data = open_dataset(arrays)
    assert any("The last 76 of 100 rows are equal." in warning for warning in data.warnings)


@pytest.mark.parametrize("marks", ["timeouts", "episode_ids"])
def test_an_agent_that_rests_at_zero_until_its_episode_ends_is_kept(marks: str) -> None:
    # A regulation task: the error falls from 30 to 0 in every tenth episode, and is far from 0 in the others.
    episodes, length = 40, 50
    start = np.where(np.arange(episodes) % 10 == 9, 30, 1_000)  # the last one rests up to the end of the data
    error = np.maximum(start[:, None] - np.arange(length), 0).reshape(-1)
    timeouts = np.arange(episodes * length) % length == length - 1
    rest = {"timeouts": timeouts} if marks == "timeouts" else {"episode_ids": np.repeat(np.arange(episodes), length)}
    moves = -1.0 * (error > 0)
    observations = np.stack([error, moves], axis=1)
    data = open_dataset({"observations": observations, "actions": moves, "rewards": -0.01 * error} | rest)
    assert data.num_transitions == 2_000
    assert data.episodes().lengths.tolist() == [50] * 40


@pytest.mark.parametrize(("spare", "steps"), [(7, 122), (8, 115)])
def test_a_few_zeros_at_the_end_are_kept(spare: int, steps: int) -> None:
    assert open_dataset({name: array[: WRITTEN + spare] for name, array in buffer().items()}).num_transitions == steps


def test_zeros_at_the_end_that_carry_the_id_of_the_last_episode_are_kept() -> None:
    ids = np.repeat([1, 2, 3], [40, 40, CAPACITY - 80])
    assert open_dataset(buffer(episode_ids=ids)).num_transitions == CAPACITY
    ids[WRITTEN:] = 0
    assert open_dataset(buffer(episode_ids=ids)).num_transitions == WRITTEN


@pytest.mark.parametrize("first_action", [0, 1])
def test_states_of_zeros_are_kept(first_action: int) -> None:
    # Positions on a grid: each episode waits in its corner, and the last one does not leave it.
    positions = np.array([0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0])
    arrays = {
        "observations": np.stack([positions, positions], axis=1),
        "actions": np.array([first_action, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0]),
        "rewards": 1.0 * (positions == 2),
        "timeouts": np.isin(np.arange(11), [3, 7]),
    }
    data = open_dataset(arrays)
    assert data.num_transitions == 11
    assert data.episodes().lengths.tolist() == [4, 4, 3]
    assert data.warnings == ()


def test_zeros_at_the_end_are_kept_if_something_happens_in_such_states() -> None:
    positions = np.array([2, 1, 0, 0, 1, 2, 1, 0, 0, 0])
    arrays = {
        "observations": np.stack([positions, positions], axis=1),
        "actions": np.array([0, 0, 0, 1, 1, 0, 0, 0, 0, 0]),
        "rewards": 1.0 * (positions == 2),
    }
    assert open_dataset(arrays).num_transitions == 10


def test_a_long_wait_within_an_episode_is_kept() -> None:
    observations = np.random.default_rng(0).normal(size=(50, 2))
    observations[20:25] = 0
    arrays = {"observations": observations, "actions": np.zeros(50), "rewards": np.zeros(50)}
    assert open_dataset(arrays).num_transitions == 50


def test_data_of_zeros_are_kept() -> None:
    arrays = {"observations": np.zeros((30, 2)), "actions": np.zeros((30, 1)), "rewards": np.zeros(30)}
    assert open_dataset(arrays).num_transitions == 30


def test_constant_end_is_reported_and_kept() -> None:
    arrays = buffer()
    padded = {name: np.concatenate([array[:WRITTEN], array[[WRITTEN - 1] * 20]]) for name, array in arrays.items()}
    data = open_dataset(padded)
    assert data.num_transitions == WRITTEN + 20
    assert any("The last 21 of 135 rows are equal" in warning for warning in data.warnings)
    short = {name: array[: WRITTEN + 5] for name, array in padded.items()}
    assert open_dataset(short).warnings == ()


def test_an_episode_with_a_reward_that_is_not_finite_is_reported() -> None:
    arrays = {name: array[:WRITTEN] for name, array in buffer().items()}
    arrays["rewards"][[50, 60]] = [np.nan, np.inf]
    data = open_dataset(arrays)
    (warning,) = data.warnings
    assert warning == (
        "1 of 3 episodes has rewards that are NaN or infinite, and is left out of all statistics of returns: 1."
    )
    assert dataset_statistics(data.episodes(), data.sample(200, 0))["dataset/return_max"].value == 105  # type: ignore[union-attr]
