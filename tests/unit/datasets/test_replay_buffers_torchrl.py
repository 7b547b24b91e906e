"""Buffers, batches and folders of TorchRL are read in the order of time; what a sampler marks is no end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.data import (
    LazyMemmapStorage,
    LazyTensorStorage,
    ListStorage,
    ReplayBuffer,
    SliceSampler,
    TensorDictMaxValueWriter,
    TensorDictReplayBuffer,
)
from torchrl.data.replay_buffers import ImmutableDatasetWriter, TensorStorage

from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from rlwandb_callbacks.errors import DatasetError


def steps(times: Any, *, truncated: bool = False) -> TensorDict:
    """Steps at some times, with observation and reward t + 1, in episodes of five steps."""
    time = torch.as_tensor(np.asarray(times), dtype=torch.float32)[..., None]
    end, never = time % 5 == 4, torch.zeros_like(time, dtype=torch.bool)
    after = {
        "observation": time + 2,
        "reward": time + 1,
        "done": end,
        "terminated": never if truncated else end,
        "truncated": end if truncated else never,
    }
    root = {"observation": time + 1, "action": time, "done": never, "terminated": never, "truncated": never}
    return TensorDict({**root, "next": TensorDict(after, batch_size=time.shape[:-1])}, batch_size=time.shape[:-1])


def filled(storage: Any, *, count: int = 13, **options: Any) -> ReplayBuffer:
    buffer = ReplayBuffer(storage=storage, **options)
    for low in range(0, count, 4):
        buffer.extend(steps(np.arange(low, min(low + 4, count))))
    return buffer


def rewards(data: OfflineDataset) -> list[float]:
    found = data.sample(data.num_transitions, 0)
    assert found.observations[:, 0].tolist() == found.rewards.tolist()
    return found.rewards.tolist()


@pytest.mark.parametrize("capacity", [40, 10])
@pytest.mark.parametrize("storage", [LazyTensorStorage, ListStorage, LazyMemmapStorage])
def test_rows_are_in_the_order_of_time(storage: Any, capacity: int, tmp_path: Path) -> None:
    buffer = filled(storage(capacity))
    sources = [buffer]
    if storage is not ListStorage:  # which cannot be dumped
        buffer.dumps(tmp_path / "dump")
        sources.append(tmp_path / "dump")
    for source in sources:
        data = open_dataset(source)
        assert rewards(data) == list(range(max(1, 14 - capacity), 14))
        assert data.episodes().lengths.tolist() == ([5, 5, 3] if capacity == 40 else [2, 5, 3])
        assert data.episodes().terminated.tolist() == [True, True, False]
        assert not data.episodes().truncated.any()


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_storage_of_time_and_environments(batches: int, tmp_path: Path) -> None:
    buffer = ReplayBuffer(storage=LazyTensorStorage(60, ndim=2))
    for batch in range(batches):
        buffer.extend(steps(10 * batch + np.arange(10)[None] + 1000 * np.arange(2)[:, None]))
    buffer.dumps(tmp_path / "dump")
    times = np.arange(max(0, batches - 3) * 10, batches * 10) + 1
    for source in (buffer, tmp_path / "dump"):
        data = open_dataset(source)
        assert rewards(data) == [*times, *(times + 1000)]
        assert data.episodes().lengths.tolist() == [5] * (4 * min(3, batches))


def test_items_of_several_steps_are_cut_after_each_unless_they_have_ids(tmp_path: Path) -> None:
    buffer = ReplayBuffer(storage=LazyTensorStorage(4))
    batch = steps(np.arange(3)[None] + 1000 * np.arange(2)[:, None])
    later = steps(3 + np.arange(3)[None] + 1000 * np.arange(2)[:, None])
    buffer.extend(batch)
    buffer.extend(later)
    buffer.dumps(tmp_path / "dump")
    for source in (buffer, tmp_path / "dump"):
        data = open_dataset(source)
        assert rewards(data) == [1, 2, 3, 1001, 1002, 1003, 4, 5, 6, 1004, 1005, 1006]
        assert data.episodes().lengths.tolist() == [3, 3, 2, 1, 2, 1]
    buffer = ReplayBuffer(storage=LazyTensorStorage(4))
    for part in (batch, later):
        part["collector"] = TensorDict({"traj_ids": torch.tensor([[0] * 3, [1] * 3])}, batch_size=part.batch_size)
        buffer.extend(part)
    data = open_dataset(buffer)
    assert rewards(data) == [1, 2, 3, 4, 5, 6, 1001, 1002, 1003, 1004, 1005, 1006]
    assert data.episodes().lengths.tolist() == [5, 1, 5, 1]


def test_environments_that_lie_one_behind_the_other_are_not_joined() -> None:
    buffer = ReplayBuffer(storage=LazyTensorStorage(40))
    buffer.extend(steps(np.arange(13)))
    buffer.extend(steps(1000 + np.arange(13)))
    data = open_dataset(buffer)
    assert data.episodes().lengths.tolist() == [5, 5, 3, 5, 5, 3]
    assert any("1 step is followed by another observation" in warning for warning in data.warnings)


def test_marks_in_a_batch_of_slices_are_no_ends_of_episodes() -> None:
    sampler = SliceSampler(num_slices=4, end_key=("next", "done"))
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(100), sampler=sampler, batch_size=12)
    buffer.extend(steps(np.arange(60)))
    torch.manual_seed(0)
    batch = buffer.sample()
    assert batch["next", "done"].sum() == 4  # one at the end of each slice
    data = open_dataset(batch)
    assert data.episodes().lengths.tolist() == [3] * 4
    real = (batch["index"].reshape(4, 3)[:, -1] % 5 == 4).tolist()
    assert 0 < sum(real) < 4
    assert data.episodes().terminated.tolist() == real
    assert not data.episodes().truncated.any()
    assert any("sampled from a buffer" in warning for warning in data.warnings)
    assert open_dataset(buffer).episodes().lengths.tolist() == [5] * 12


def test_batch_of_environments_and_time() -> None:
    data = open_dataset(steps(np.arange(10)[None] + 1000 * np.arange(2)[:, None], truncated=True))
    assert rewards(data) == [*range(1, 11), *range(1001, 1011)]
    assert data.episodes().truncated.tolist() == [True] * 4
    assert not data.episodes().terminated.any()


def test_buffer_without_an_order_of_time_is_refused() -> None:
    storage, writer = LazyTensorStorage(10), TensorDictMaxValueWriter(rank_key=("next", "reward"))
    buffer = TensorDictReplayBuffer(storage=storage, writer=writer, batch_size=2)
    buffer.extend(steps(np.arange(10)))
    with pytest.raises(DatasetError, match=r"TensorDictMaxValueWriter.* order of its rows in time is not stored"):
        open_dataset(buffer)
    with pytest.raises(DatasetError, match="ReplayBuffer has zero transitions"):
        open_dataset(ReplayBuffer(storage=LazyTensorStorage(10)))


def test_folder_of_which_a_part_is_missing_is_refused(tmp_path: Path) -> None:
    filled(LazyTensorStorage(10)).dumps(tmp_path / "dump")
    array = tmp_path / "dump" / "storage" / "observation.memmap"
    whole = array.read_bytes()
    array.write_bytes(whole[:-4])
    with pytest.raises(DatasetError, match=r"has 36 bytes, and meta.json declares 40"):
        open_dataset(tmp_path / "dump")
    array.write_bytes(whole)
    facts = tmp_path / "dump" / "writer" / "metadata.json"
    facts.write_text(json.dumps({"cursor": 99}))
    with pytest.raises(DatasetError, match="cursor 99"):
        open_dataset(tmp_path / "dump")
    facts.unlink()
    with pytest.raises(DatasetError, match="which tells where its oldest row is"):
        open_dataset(tmp_path / "dump")


def test_memory_mapped_tensordict(tmp_path: Path) -> None:
    steps(np.arange(13)).memmap(tmp_path / "data")
    data = open_dataset(tmp_path / "data")
    assert rewards(data) == list(range(1, 14))
    assert data.episodes().lengths.tolist() == [5, 5, 3]


class MinariExperienceReplay(TensorDictReplayBuffer):
    """The storage and writer of torchrl's class of this name, which holds only zeros (0.14.1)."""

    def __init__(self, rows: TensorDict) -> None:
        super().__init__(storage=TensorStorage(rows), writer=ImmutableDatasetWriter(), batch_size=4)


def test_zeros_of_torchrl_are_reported_with_their_cause(tmp_path: Path) -> None:
    zeros = steps(np.arange(13)).apply(torch.zeros_like)
    zeros["episode"] = torch.zeros(13, dtype=torch.int64)
    zeros.memmap(tmp_path / "data")
    (tmp_path / "data" / "env_metadata.json").write_text("{}")
    for source in (MinariExperienceReplay(zeros), tmp_path / "data"):
        data = open_dataset(source)
        assert data.num_transitions == 13
        assert any("MinariExperienceReplay of torchrl" in warning for warning in data.warnings)
