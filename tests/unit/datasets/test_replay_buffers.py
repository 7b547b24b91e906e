"""Replay buffers are read in the order of time, one environment after the other, without rows that were not written.

Environment e plays observation 1000 e + t + 1 at step t, which is also its reward. Episodes have five steps; every
second one is ended by a time limit.
"""

from __future__ import annotations

import pickle
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer, RolloutBuffer
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from rlwandb_callbacks.errors import DatasetError

STEPS, LENGTH = 13, 5  # the third episode is open
Arrays = dict[str, Any]


def played(environments: int, steps: int = STEPS) -> Arrays:
    """What the environments play: arrays of shape ``[steps, environments, ...]``."""
    step = np.arange(steps)[:, None]
    observations = (1000.0 * np.arange(environments) + step + 1)[..., None].astype(np.float32)
    done = np.broadcast_to(step % LENGTH == LENGTH - 1, (steps, environments))
    timeouts = done & ((step // LENGTH) % 2 == 1)
    return {
        "observations": observations,
        "next_observations": observations + 1,
        "actions": observations / 1e5,
        "rewards": observations[..., 0],
        "dones": done,
        "terminated": done & ~timeouts,
        "truncated": timeouts,
    }


def ring(rows: np.ndarray, capacity: int) -> np.ndarray:
    """What a ring of this capacity holds after the rows were written: zeros where nothing was."""
    held = np.zeros((capacity, *rows.shape[1:]), rows.dtype)
    for step, row in enumerate(rows):
        held[step % capacity] = row
    return held


def assert_played(data: OfflineDataset, environments: int, capacity: int, *, first: int | None = None) -> None:
    """Asserts that the newest ``capacity`` steps of each environment are there in order, with the right ends."""
    first = max(0, STEPS - capacity) if first is None else first
    found = data.sample(data.num_transitions, 0)
    time = np.arange(first, STEPS)
    expected = np.concatenate([1000 * env + time + 1 for env in range(environments)])
    assert found.observations[:, 0].tolist() == expected.tolist()
    assert found.rewards.tolist() == expected.tolist()
    whole = played(environments)
    assert flags(data, "terminated") == whole["terminated"][first:].T.reshape(-1).tolist()
    assert flags(data, "truncated") == whole["truncated"][first:].T.reshape(-1).tolist()
    is_last = whole["dones"][first:].copy()
    is_last[-1] = True  # a cut behind the newest row of each environment
    ends = np.flatnonzero(is_last.T.reshape(-1))
    assert data.episodes().lengths.tolist() == np.diff([-1, *ends]).tolist()


def flags(data: OfflineDataset, mark: str) -> list[bool]:
    """Whether each row is the last of an episode with this mark."""
    found = np.zeros(data.num_transitions, bool)
    found[np.cumsum(data.episodes().lengths) - 1] = getattr(data.episodes(), mark)
    return found.tolist()


def stable_baselines(kind: Any, environments: int, capacity: int, **options: Any) -> Any:
    box, parts = spaces.Box(-9, 9, (1,)), played(environments)
    is_dict = issubclass(kind, DictReplayBuffer)
    keys = ("observation", "achieved_goal", "desired_goal")
    space = spaces.Dict(dict.fromkeys(keys, box)) if is_dict else box
    size = capacity * environments
    buffer = kind(size, space, spaces.Box(-1, 1, (1,)), device="cpu", n_envs=environments, **options)
    for t in range(STEPS):
        now, later = parts["observations"][t], parts["next_observations"][t]
        if is_dict:
            now, later = dict.fromkeys(keys, now), dict.fromkeys(keys, later)
        infos = [{"TimeLimit.truncated": cut} for cut in parts["truncated"][t]]
        buffer.add(now, later, parts["actions"][t], parts["rewards"][t], parts["dones"][t], infos)
    return buffer


@pytest.mark.parametrize("capacity", [40, 13, 10])
@pytest.mark.parametrize("environments", [1, 2])
@pytest.mark.parametrize("kind", [ReplayBuffer, DictReplayBuffer])
def test_stable_baselines(kind: Any, environments: int, capacity: int) -> None:
    buffer = stable_baselines(kind, environments, capacity)
    for source in (buffer, vars(buffer)):
        data = open_dataset(source)
        assert_played(data, environments, capacity)
        assert any("full" in warning for warning in data.warnings) == (capacity <= STEPS)


def test_stable_baselines_hindsight_replay() -> None:
    assert_played(open_dataset(stable_baselines(HerReplayBuffer, 2, 10, env=None)), 2, 10)


def test_oldest_row_of_a_full_buffer_without_next_observations_has_lost_its_observation() -> None:
    options = {"optimize_memory_usage": True, "handle_timeout_termination": False}
    data = open_dataset(stable_baselines(ReplayBuffer, 1, 10, **options))
    assert data.sample(99, 0).rewards.tolist() == list(range(5, 14))
    assert data.sample(99, 0).observations[:, 0].tolist() == list(range(5, 14))
    assert any("does not record time limits" in warning for warning in data.warnings)


def test_scaled_actions_of_stable_baselines_are_reported() -> None:
    buffer = stable_baselines(ReplayBuffer, 1, 40)
    assert not any("scaled" in warning for warning in open_dataset(buffer).warnings)
    buffer.action_space = spaces.Box(-2, 2, (1,))
    assert any("stores them scaled" in warning for warning in open_dataset(buffer).warnings)


def test_saved_buffer_of_stable_baselines_is_read_as_its_error_says(tmp_path: Path) -> None:
    path, saved = tmp_path / "replay.pkl", tmp_path / "data.npz"
    path.write_bytes(pickle.dumps(stable_baselines(ReplayBuffer, 2, 10)))
    with pytest.raises(DatasetError, match=r"nothing in the file was run.* or a replay buffer"):
        open_dataset(path)
    open_dataset(pickle.loads(path.read_bytes())).save(saved)
    assert_played(open_dataset(saved), 2, 10)


def test_rollout_buffer_is_refused_because_its_rewards_hold_values() -> None:
    buffer = RolloutBuffer(4, spaces.Box(-9, 9, (1,)), spaces.Box(-1, 1, (1,)), device="cpu")
    for source in (buffer, vars(buffer)):
        with pytest.raises(DatasetError, match="value estimates where a time limit ended"):
            open_dataset(source)


def test_marks_that_say_done_at_time_limits_too() -> None:
    parts = {name: array[:, 0] for name, array in played(1).items()}
    arrays = {name: parts[name] for name in ("observations", "actions", "rewards", "dones")}
    data = open_dataset(arrays | {"timeouts": parts["truncated"]})
    assert data.episodes().terminated.tolist() == [True, False, False]
    assert data.episodes().truncated.tolist() == [False, True, False]


HAND_WRITTEN = {
    "author's TD3": ("state", "action", "reward", "ptr", "size"),
    "Spinning Up": ("obs_buf", "act_buf", "rew_buf", "ptr", "size"),
    "pytorch_sac": ("obses", "actions", "rewards", "idx", "full"),
}


@pytest.mark.parametrize("capacity", [40, 10])
@pytest.mark.parametrize("names", HAND_WRITTEN.values(), ids=HAND_WRITTEN)
def test_buffers_with_a_position_that_are_written_by_hand(
    names: tuple[str, ...], capacity: int, tmp_path: Path
) -> None:
    parts = {name: ring(array[:, 0], capacity) for name, array in played(1).items()}
    arrays = dict(zip(names[:3], (parts["observations"], parts["actions"], parts["rewards"][:, None]), strict=True))
    arrays |= {"done_buf" if "obs_buf" in arrays else "terminated": parts["terminated"], "timeouts": parts["truncated"]}
    count = min(capacity, STEPS)
    numbers = {names[3]: STEPS % capacity, names[4]: capacity <= STEPS if names[4] == "full" else count}
    np.savez(tmp_path / "a.npz", **arrays, **numbers)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, value in (arrays | numbers).items():
            file[key] = value
    for source in (SimpleNamespace(**arrays, **numbers), arrays | numbers, tmp_path / "a.npz", tmp_path / "a.h5"):
        assert_played(open_dataset(source), 1, capacity)


def test_position_and_size_that_contradict_each_other_are_refused() -> None:
    parts = {name: ring(array[:, 0], 40) for name, array in played(1).items() if name != "next_observations"}
    with pytest.raises(DatasetError, match="ptr is 5 and size is 13"):
        open_dataset(parts | {"ptr": 5, "size": 13})
    with pytest.raises(DatasetError, match="ptr is 41, and its arrays have 40 rows"):
        open_dataset(parts | {"ptr": 41, "size": 40})


def test_list_that_is_written_from_its_beginning_again() -> None:
    parts = {name: ring(array[:, 0], 10) for name, array in played(1).items()}
    names = ("observations", "actions", "rewards", "terminated", "truncated")
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(parts[name] for name in names), strict=True)]
    memory = SimpleNamespace(memory=rows, position=3, capacity=10)
    assert_played(open_dataset(memory), 1, 10)
    assert_played(open_dataset(list(deque(rows[3:] + rows[:3]))), 1, 10)


def test_arrays_of_a_full_buffer_show_their_oldest_row_by_next_observations() -> None:
    parts = {name: ring(array[:, 0], 11) for name, array in played(1).items()}
    data = open_dataset({name: parts[name] for name in parts if name != "dones"})
    assert_played(data, 1, 11)
    assert any("Only the step before row 2 does not lead to the row after it" in warning for warning in data.warnings)


def test_empty_buffer_is_an_error() -> None:
    buffer = ReplayBuffer(10, spaces.Box(-9, 9, (1,)), spaces.Box(-1, 1, (1,)), device="cpu")
    with pytest.raises(DatasetError, match="ReplayBuffer has zero transitions"):
        open_dataset(buffer)


def test_another_process_receives_the_rows_that_were_written() -> None:
    buffer = stable_baselines(ReplayBuffer, 1, 40)
    buffer.observations = np.concatenate([buffer.observations, np.zeros((0, 1, 1), np.float32)])
    data = pickle.loads(pickle.dumps(open_dataset(buffer)))
    assert_played(data, 1, 40)


def skrl_memory(environments: int, capacity: int) -> SimpleNamespace:
    """Attributes of skrl's memories (2.1): NaN where nothing was written."""
    parts = {name: ring(array, capacity) for name, array in played(environments).items() if name != "dones"}
    tensors = {name: array.reshape(capacity, environments, 1) for name, array in parts.items()}
    for array in tensors.values():
        if array.dtype.kind == "f":
            array[STEPS:] = np.nan
    return SimpleNamespace(
        tensors=tensors,
        memory_size=capacity,
        num_envs=environments,
        memory_index=STEPS % capacity,
        env_index=0,
        filled=capacity <= STEPS,
    )


@pytest.mark.parametrize("capacity", [40, 11])
def test_skrl_in_memory_and_saved(capacity: int, tmp_path: Path) -> None:
    memory = skrl_memory(2, capacity)
    path = tmp_path / "26-11-29_00-53-11-357885_memory_0x7f4fb98260d0.npz"
    np.savez(path, **memory.tensors)
    for source in (memory, path):
        assert_played(open_dataset(source), 2, capacity)


def test_full_memory_of_skrl_without_next_observations_is_refused_with_a_remedy_that_works(tmp_path: Path) -> None:
    memory = skrl_memory(2, 13)
    memory.tensors.pop("next_observations")
    path = tmp_path / "26-11-29_00-53-11-357885_memory_0x7f4fb98260d0.npz"
    np.savez(path, **memory.tensors)
    with pytest.raises(DatasetError, match="does not hold which row is the oldest"):
        open_dataset(path)
    assert_played(open_dataset({**np.load(path), "memory_index": 0, "filled": True}), 2, 13)


def test_row_of_skrl_that_only_some_environments_have_written() -> None:
    memory = skrl_memory(2, 40)
    memory.memory_index, memory.env_index = STEPS - 1, 1
    assert open_dataset(memory).sample(99, 0).rewards.tolist() == [*range(1, 14), *range(1001, 1013)]


def tianshou_part(arrays: Arrays, capacity: int) -> SimpleNamespace:
    """Attributes of tianshou's buffers (2.0)."""
    names = {"observations": "obs", "actions": "act", "rewards": "rew", "terminated": "terminated"}
    names |= {"truncated": "truncated", "dones": "done", "next_observations": "obs_next"}
    return SimpleNamespace(
        _meta={short: ring(arrays[name], capacity) for name, short in names.items()},
        maxsize=capacity,
        last_index=np.array([(STEPS - 1) % capacity]),
        _insertion_idx=STEPS % capacity,
        _size=min(STEPS, capacity),
    )


def tianshou(environments: int, capacity: int) -> SimpleNamespace:
    """A buffer of one environment, or a vector buffer, whose own numbers of rows stay 0."""
    whole = played(environments)
    columns = [{name: array[:, env] for name, array in whole.items()} for env in range(environments)]
    parts = [tianshou_part(column, capacity) for column in columns]
    if environments == 1:
        return parts[0]
    offset = capacity * np.arange(environments)
    return SimpleNamespace(
        _meta={name: np.concatenate([part._meta[name] for part in parts]) for name in parts[0]._meta},
        buffers=np.array(parts, dtype=object),
        maxsize=capacity * environments,
        last_index=np.concatenate([part.last_index for part in parts]) + offset,
        _insertion_idx=0,
        _size=0,
        _offset=offset,
        _extend_offset=np.append(offset, capacity * environments),
        _lengths=np.array([part._size for part in parts]),
    )


def save_as_tianshou(buffer: SimpleNamespace, path: Path) -> None:
    with h5py.File(path, "w") as file:
        for key, value in vars(buffer).items():
            if key == "_meta":
                for name, array in value.items():
                    file[f"_meta/{name}"] = array
            elif isinstance(value, np.ndarray):
                file[key] = np.zeros(4, np.int8) if value.dtype == object else value
            else:
                file.attrs[key] = value


@pytest.mark.parametrize("capacity", [40, 10])
@pytest.mark.parametrize("environments", [1, 3])
def test_tianshou_in_memory_and_saved(environments: int, capacity: int, tmp_path: Path) -> None:
    buffer = tianshou(environments, capacity)
    save_as_tianshou(buffer, tmp_path / "a.hdf5")
    for source in (buffer, vars(buffer), tmp_path / "a.hdf5"):
        assert_played(open_dataset(source), environments, capacity)


def test_hindsight_goals_that_tianshou_left_in_its_rows_are_not_read() -> None:
    buffer = tianshou(1, 40)
    rows = np.array([5, 6])
    original = {name: buffer._meta[name][rows].copy() for name in ("obs", "rew")}
    buffer._altered_indices, buffer._original_meta = rows, original
    buffer._meta["obs"][rows], buffer._meta["rew"][rows] = -1, -1
    assert_played(open_dataset(buffer), 1, 40)
    assert buffer._meta["rew"][5] == -1  # the buffer itself is as it was


def test_file_of_tianshou_whose_numbers_do_not_fit_is_refused(tmp_path: Path) -> None:
    buffer = tianshou(3, 10)
    buffer._lengths = np.array([10, 11, 10])
    save_as_tianshou(buffer, tmp_path / "a.hdf5")
    with pytest.raises(DatasetError, match="do not fit 30 rows of rewards"):
        open_dataset(tmp_path / "a.hdf5")


class Cpprb:
    """The methods of cpprb's buffers (11.0): arrays in the order of their rows."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.rows = {name: ring(array[:, 0], capacity) for name, array in played(1).items() if name != "dones"}

    def get_all_transitions(self) -> Arrays:
        return {name: array[: self.get_stored_size()].reshape(-1, 1) for name, array in self.rows.items()}

    def get_stored_size(self) -> int:
        return min(STEPS, self._capacity)

    def get_next_index(self) -> int:
        return STEPS % self._capacity

    def get_buffer_size(self) -> int:
        return self._capacity

    def is_Nstep(self) -> bool:  # noqa: N802
        return False


@pytest.mark.parametrize("capacity", [40, 10])
def test_cpprb(capacity: int) -> None:
    assert_played(open_dataset(Cpprb(capacity)), 1, capacity)


def test_file_of_cpprb_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    parts = {"data": np.array({}, dtype=object), "safe": True, "version": 1, "Nstep": False}
    np.savez(tmp_path / "a.npz", **parts)
    with pytest.raises(DatasetError, match=r"cpprb's save_transitions.* does not hold which row is the oldest"):
        open_dataset(tmp_path / "a.npz")


def test_episodes_of_d3rlpy() -> None:
    parts = {name: array[:, 0] for name, array in played(1).items()}
    episodes = [
        SimpleNamespace(
            observations=parts["observations"][rows],
            actions=parts["actions"][rows],
            rewards=parts["rewards"][rows, None],
            terminated=bool(parts["terminated"][rows][-1]),
        )
        for rows in (slice(0, 5), slice(5, 10), slice(10, 13))
    ]
    data = open_dataset(SimpleNamespace(episodes=episodes, dataset_info=None))
    assert data.episodes().lengths.tolist() == [5, 5, 3]
    assert data.episodes().terminated.tolist() == [True, False, False]
    assert data.sample(99, 0).rewards.tolist() == list(range(1, 14))
