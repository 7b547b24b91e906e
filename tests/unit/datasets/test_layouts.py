"""Every layout is read back as it was written, whatever its file is called."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch

from rlwandb_callbacks.core.action_spec import ContinuousActions, DiscreteActions
from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from tests.helpers.datasets import Rows

SHORT = {"observations": "obs", "actions": "action", "rewards": "reward", "terminals": "done"}


def whole(data: OfflineDataset) -> Any:
    """All transitions."""
    found = data.sample(data.num_transitions, seed=0)
    assert found.rows.tolist() == list(range(data.num_transitions))
    return found


def assert_holds(data: OfflineDataset, arrays: dict[str, Any]) -> None:
    """Asserts that a data set holds all rows of these arrays."""
    found = whole(data)
    np.testing.assert_array_equal(found.observations, arrays["observations"])
    np.testing.assert_array_equal(found.actions, arrays["actions"])
    np.testing.assert_array_equal(found.rewards, np.reshape(arrays["rewards"], -1))
    last = arrays["terminals"] | arrays["timeouts"]
    ends = np.flatnonzero(last)
    np.testing.assert_array_equal(found.episodes, np.concatenate(([0], np.cumsum(last)[:-1])))
    np.testing.assert_array_equal(data.episodes().lengths, np.diff(np.concatenate(([-1], ends))))
    assert data.episodes().lengths[found.episodes].tolist() == found.lengths.tolist()


def transitions_of(arrays: dict[str, Any], wrap: Callable[[Any], Any] = np.asarray) -> list[dict[str, Any]]:
    count = len(arrays["rewards"])
    return [
        {short: wrap(arrays[name][row]) for name, short in SHORT.items()} | {"next_obs": wrap(np.zeros(4)), "info": {}}
        for row in range(count)
    ]


def test_d4rl_with_infos_and_metadata_that_are_ignored(make_arrays: Any, write_hdf5: Any) -> None:
    arrays = make_arrays()
    extra = {
        "next_observations": arrays["observations"],
        "infos": {"qpos": np.zeros((3, 7)), "action_log_probs": np.zeros(10)},
        "metadata": {"algorithm": np.bytes_(b"SAC"), "policy": {"fc0": {"weight": np.zeros((2, 2))}}},
    }
    data = open_dataset(write_hdf5(arrays | extra, compression="gzip"))
    assert (data.layout, data.num_transitions, data.num_episodes, data.observation_shape) == ("d4rl", 10, 3, (4,))
    assert_holds(data, arrays)
    assert data.episodes().terminated.tolist() == [True, False, True]
    assert data.episodes().truncated.tolist() == [False, True, False]
    expected = [arrays["rewards"][low:high].sum(dtype=np.float64) for low, high in ((0, 3), (3, 8), (8, 10))]
    np.testing.assert_allclose(data.episodes().returns, expected, rtol=1e-12)
    assert whole(data).steps.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1]
    assert data.warnings == ()


def test_d4rl_without_timeouts_warns_that_episodes_run_together(write_hdf5: Any) -> None:
    count = 768_000
    terminals = np.zeros(count + 3, dtype=bool)
    terminals[-1] = terminals[1] = True
    arrays = {"observations": np.zeros((count + 3, 1), np.float32), "actions": np.zeros((count + 3, 1), np.float32)}
    data = open_dataset(write_hdf5(arrays | {"rewards": np.ones(count + 3), "terminals": terminals}))
    (warning,) = data.warnings
    assert "Episode 1 has 768,001 steps, which is a bug in the file" in warning
    assert "no time limits" in warning
    assert data.episodes().returns.tolist() == [2.0, 768_001.0]


def test_di_engine_hdf5_has_rewards_in_a_column(make_arrays: Any, write_hdf5: Any) -> None:
    arrays = make_arrays()
    last = arrays["terminals"] | arrays["timeouts"]
    stored = {"obs": arrays["observations"], "action": arrays["actions"], "reward": arrays["rewards"][:, None]}
    data = open_dataset(write_hdf5(stored | {"done": last, "next_obs": arrays["observations"]}))
    assert data.layout == "di-engine"
    assert_holds(data, arrays)


@pytest.mark.parametrize("wrap", [np.asarray, torch.as_tensor, lambda value: np.asarray(value).tolist()])
@pytest.mark.parametrize("save", ["pickle 0", "pickle 2", "pickle 4", "pickle 5", "torch", "old torch"])
@pytest.mark.parametrize("by_episode", [False, True])
def test_di_engine_pickles(make_arrays: Any, tmp_path: Path, wrap: Any, save: str, by_episode: bool) -> None:
    arrays = make_arrays()
    last = arrays["terminals"] | arrays["timeouts"]
    rows: Any = transitions_of({**arrays, "rewards": arrays["rewards"][:, None], "terminals": last}, wrap)
    if by_episode:
        rows = [rows[0:3], rows[3:8], rows[8:10]]
    path = tmp_path / "expert.data"
    if save.startswith("pickle"):
        path.write_bytes(pickle.dumps(rows, int(save[-1])))
    else:
        torch.save(rows, path, _use_new_zipfile_serialization=save == "torch")
    data = open_dataset(path)
    assert data.layout == "di-engine-pickle"
    assert_holds(data, arrays)


def test_pickled_episodes_without_done_end_with_their_lists(make_arrays: Any, tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("obs", "action", "reward")} for row in transitions_of(make_arrays())]
    (tmp_path / "a").write_bytes(pickle.dumps([rows[:3], [], rows[3:]]))
    found = open_dataset(tmp_path / "a").episodes()
    assert found.lengths.tolist() == [3, 7]
    assert not found.terminated.any()
    assert found.truncated.all()


@pytest.mark.parametrize("extra_state", [0, 1])
def test_pickled_episodes_of_arrays(make_arrays: Any, tmp_path: Path, extra_state: int) -> None:
    arrays = make_arrays()
    edges = [(0, 3), (3, 8), (8, 10)]
    episodes = [{name: array[low:high] for name, array in arrays.items()} for low, high in edges]
    for episode in episodes:
        episode["observations"] = np.concatenate([episode["observations"], np.zeros((extra_state, 4), np.float32)])
    (tmp_path / "a").write_bytes(pickle.dumps(episodes))
    assert_holds(open_dataset(tmp_path / "a"), arrays)


@pytest.mark.parametrize("lengths", [(1, 2, 7), (1, 1, 8), (0, 1, 9), (9, 1)])
def test_episodes_of_arrays_may_start_with_short_ones(lengths: tuple[int, ...], make_arrays: Any) -> None:
    arrays = make_arrays()
    edges = np.cumsum([0, *lengths])
    episodes = [{name: array[low:high] for name, array in arrays.items()} for low, high in itertools.pairwise(edges)]
    data = open_dataset(episodes)
    assert (data.num_transitions, data.observation_shape) == (10, (4,))
    assert set(np.cumsum(data.episodes().lengths)) >= set(edges[1:]) - {0}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(make_arrays: Any, tmp_path: Path, save: Any) -> None:
    arrays = make_arrays()
    columns = arrays | {"observations": np.asfortranarray(arrays["observations"])}
    for stored in (arrays, columns):
        save(tmp_path / "a.npz", **stored)
        data = open_dataset((tmp_path / "a.npz").rename(tmp_path / "named_otherwise"))
        assert data.layout == "npz"
        assert_holds(data, arrays)


def test_other_names_are_recognized(make_arrays: Any, write_hdf5: Any, tmp_path: Path) -> None:
    arrays = make_arrays()
    last = arrays["terminals"] | arrays["timeouts"]
    starts = np.concatenate(([True], last[:-1]))
    base = {"states": arrays["observations"], "acts": arrays["actions"], "rews": arrays["rewards"]}
    for marks in (
        {"dones": last},
        {"episode_starts": starts},
        {"episode_ids": np.cumsum(starts)},
        {"episode_terminals": last},
    ):
        np.savez(tmp_path / "a.npz", **base, **marks)
        assert_holds(open_dataset(tmp_path / "a.npz"), arrays)
        data = open_dataset(write_hdf5(base | marks))
        assert data.layout == "hdf5"
        assert_holds(data, arrays)


@pytest.mark.parametrize("wrap", [np.asarray, torch.as_tensor, np.ndarray.tolist])
def test_arrays_in_memory(make_arrays: Any, wrap: Any) -> None:
    made = make_arrays()
    arrays = made | {name: made[name].astype(np.float64) for name in ("observations", "actions", "rewards")}
    data = open_dataset({name: wrap(array) for name, array in arrays.items()} | {"infos": [{}, {"a": 1}]})
    assert data.layout == "memory"
    assert_holds(data, arrays)


@pytest.mark.parametrize("form", ["dicts", "tuples of 5", "tuples of 6", "TensorDataset"])
def test_torch_data_sets(make_arrays: Any, form: str) -> None:
    arrays = make_arrays()
    last = arrays["terminals"] | arrays["timeouts"]
    rows = transitions_of({**arrays, "terminals": last}, torch.as_tensor)
    five = [(row["obs"], row["action"], row["reward"], row["next_obs"], row["done"]) for row in rows]
    six = [
        (*row[:4], terminal, timeout)
        for row, terminal, timeout in zip(five, arrays["terminals"], arrays["timeouts"], strict=True)
    ]
    tensors = [torch.as_tensor(np.stack([np.asarray(row[place]) for row in five])) for place in range(5)]
    sources = {
        "dicts": Rows(rows),
        "tuples of 5": Rows(five),
        "tuples of 6": Rows(six),
        "TensorDataset": torch.utils.data.TensorDataset(*tensors),
    }
    data = open_dataset(sources[form])
    assert data.layout == "torch"
    assert_holds(data, arrays)


def store_by_minari(env: gym.Env, name: str, episodes: int = 3) -> None:
    """Plays random episodes and stores them by Minari (its own collector needs jax)."""
    import minari
    from minari.data_collector.episode_buffer import EpisodeBuffer

    env.action_space.seed(0)
    buffers = []
    for index in range(episodes):
        played: dict[str, list[Any]] = {column: [] for column in ("actions", "rewards", "terminations", "truncations")}
        seen, over = [env.reset(seed=index)[0]], False
        while not over:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            seen.append(observation)
            for column, value in zip(played.values(), (action, reward, terminated, truncated), strict=True):
                column.append(value)
            over = terminated or truncated
        buffers.append(EpisodeBuffer(id=index, seed=index, observations=by_part(seen), **played))
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    minari.create_dataset_from_buffers(name, buffer=buffers, algorithm_name="random", **spaces)


def by_part(seen: list[Any]) -> Any:
    if isinstance(seen[0], dict):
        return {key: by_part([one[key] for one in seen]) for key in seen[0]}
    if isinstance(seen[0], tuple):
        return tuple(by_part([one[index] for one in seen]) for index in range(len(seen[0])))
    return seen


@pytest.fixture
def minari_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.mark.filterwarnings("ignore")  # Minari's advice on metadata
@pytest.mark.parametrize(("env", "limit"), [("CartPole-v1", 12), ("Pendulum-v1", 7)])
def test_minari_data_are_read_as_minari_reads_them(minari_folder: Path, env: str, limit: int) -> None:
    import minari

    store_by_minari(gym.make(env, max_episode_steps=limit), "made/here-v0")
    theirs = list(minari.load_dataset("made/here-v0").iterate_episodes())
    folder = minari_folder / "made/here-v0"
    for source in ("made/here-v0", folder, folder / "data", folder / "data/main_data.hdf5"):
        data = open_dataset(source)
        found = whole(data)
        assert data.layout == "minari"
        np.testing.assert_array_equal(found.observations, np.concatenate([one.observations[:-1] for one in theirs]))
        np.testing.assert_array_equal(found.actions, np.concatenate([one.actions for one in theirs]))
        np.testing.assert_array_equal(found.rewards, np.concatenate([one.rewards for one in theirs]))
        assert data.episodes().lengths.tolist() == [len(one.rewards) for one in theirs]
        assert data.episodes().terminated.tolist() == [bool(one.terminations[-1]) for one in theirs]
        assert data.episodes().truncated.tolist() == [bool(one.truncations[-1]) for one in theirs]
    if env == "Pendulum-v1":
        assert isinstance(data.action_spec, ContinuousActions)
        assert data.action_spec.high.tolist() == [2.0]
    else:
        assert data.action_spec == DiscreteActions(("0", "1"))


class Pictures(gym.Env):
    """Observes a dict with a picture, a tuple and a text."""

    observation_space = gym.spaces.Dict(
        picture=gym.spaces.Box(0, 255, (40, 36, 3), np.uint8),
        pair=gym.spaces.Tuple((gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(5))),
        mission=gym.spaces.Text(5),
    )
    action_space = gym.spaces.Discrete(3, start=1)

    def _look(self) -> dict[str, Any]:
        picture = np.full((40, 36, 3), 20 * self.count, dtype=np.uint8)
        return {
            "picture": picture,
            "pair": (np.full(2, self.count / 10, np.float32), np.int64(self.count)),
            "mission": "go",
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.count = 0
        return self._look(), {}

    def step(self, action: int) -> Any:
        self.count += 1
        return self._look(), 1.0, self.count == 4, False, {}


@pytest.mark.filterwarnings("ignore")  # Minari's advice on metadata
def test_dict_tuple_and_picture_observations_of_minari(minari_folder: Path) -> None:
    store_by_minari(Pictures(), "pictures-v0", episodes=2)
    data = open_dataset("pictures-v0")
    found = whole(data)
    assert data.observation_shape == (2 + 1 + 40 * 36 * 3,)
    steps = np.tile(np.arange(4), 2)
    np.testing.assert_allclose(found.observations[:, 0], steps / 10, atol=1e-6)
    np.testing.assert_array_equal(found.observations[:, 2], steps)
    np.testing.assert_allclose(found.observations[:, 3:].mean(axis=1), 20 * steps, atol=2)  # JPEG loses a little
    assert data.action_spec == DiscreteActions(("1", "2", "3"), first=1)
    assert found.actions.min() >= 1


def test_minari_episodes_are_ordered_by_number_without_empty_ones(write_hdf5: Any) -> None:
    tree = {
        f"episode_{index}": {
            "observations": np.full((index + 1, 2), index, np.float32),
            "actions": np.zeros(index, np.int64),
            "rewards": np.full(index, float(index)),
            "terminations": np.zeros(index, bool),
            "truncations": np.zeros(index, bool),
        }
        for index in range(12)
    }
    data = open_dataset(write_hdf5(tree))
    assert data.episodes().lengths.tolist() == list(range(1, 12))
    assert data.episodes().returns.tolist() == [float(index * index) for index in range(1, 12)]
    assert (whole(data).observations[:, 0] == whole(data).lengths).all()
    assert data.warnings == ("Episodes without steps were left out: 1.",)


def test_end_marks_within_a_minari_episode_are_reported(write_hdf5: Any) -> None:
    group = {"observations": np.zeros((5, 1)), "actions": np.zeros((4, 1)), "rewards": np.zeros(4)}
    marks = np.array([False, True, False, False])
    data = open_dataset(write_hdf5({"episode_0": group | {"terminations": marks, "truncations": ~marks & False}}))
    assert data.num_episodes == 1
    assert any("1 step is marked as the end of an episode although" in warning for warning in data.warnings)


def test_dict_observations_of_flat_layouts_are_one_vector(write_hdf5: Any, tmp_path: Path) -> None:
    tree = {"observations": {"b": np.arange(6.0).reshape(3, 2), "a": np.arange(3, dtype=np.float32)}}
    rest = {"actions": np.zeros((3, 1)), "rewards": np.zeros(3)}
    expected = [[0, 0, 1], [1, 2, 3], [2, 4, 5]]
    np.savez(
        tmp_path / "a.npz", **{f"observations/{key}": value for key, value in tree["observations"].items()}, **rest
    )
    rows = [
        {"obs": {"a": np.float32(row), "b": tree["observations"]["b"][row]}, "action": [0.0], "reward": 0.0}
        for row in range(3)
    ]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(rows))
    for source in (tree | rest, write_hdf5(tree | rest), tmp_path / "a.npz", tmp_path / "a.pkl", Rows(rows), rows):
        assert whole(open_dataset(source)).observations.tolist() == expected


@pytest.mark.parametrize("shape", [(), (5,), (8, 8), (3, 8, 8)])
def test_observations_keep_their_shape_and_dtype(shape: tuple[int, ...], write_hdf5: Any) -> None:
    observations = np.random.default_rng(0).integers(0, 255, (7, *shape)).astype(np.uint8)
    rest = {"actions": np.zeros((7, 1)), "rewards": np.zeros(7)}
    data = open_dataset(write_hdf5({"observations": observations} | rest))
    assert data.observation_shape == shape
    assert whole(data).observations.dtype == np.uint8
    np.testing.assert_array_equal(whole(data).observations, observations)


def test_big_endian_numbers_and_a_user_block_are_read(make_arrays: Any, write_hdf5: Any) -> None:
    arrays = make_arrays()
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    data = open_dataset(write_hdf5(swapped, userblock=2048))
    assert_holds(data, arrays)
    assert whole(data).observations.dtype == np.dtype("=f4")


def test_dataset_format_overrides_the_recognized_one(make_arrays: Any, write_hdf5: Any) -> None:
    arrays = make_arrays()
    assert open_dataset(write_hdf5(arrays), "hdf5").layout == "hdf5"
    both = arrays | {SHORT.get(name, name): array * 0 for name, array in arrays.items() if name in SHORT}
    path = write_hdf5(both)
    assert_holds(open_dataset(path), arrays)
    assert (whole(open_dataset(path, "di-engine")).observations == 0).all()


def test_pickled_data_set_holds_no_data_and_opens_its_file_again(
    make_arrays: Any, write_hdf5: Any, tmp_path: Path
) -> None:
    arrays = make_arrays((50, 50), width=1000)
    (tmp_path / "rows.pkl").write_bytes(pickle.dumps(arrays))
    np.savez(tmp_path / "rows.npz", **arrays)
    for path in (write_hdf5(arrays), tmp_path / "rows.pkl", tmp_path / "rows.npz"):
        with open_dataset(path) as data:
            assert_holds(data, arrays)
            packed = pickle.dumps(data)
        assert len(packed) < 5_000
        assert_holds(pickle.loads(packed), arrays)


def test_nothing_heavy_is_imported_before_it_is_needed(make_arrays: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **make_arrays())
    code = (
        "import sys; import rlwandb_callbacks; rlwandb_callbacks.open_dataset('a.npz').sample(3, 0); "
        "print(sorted({'h5py', 'torch', 'minari', 'gymnasium', 'wandb'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_file_is_closed_after_each_call_and_stays_open_in_a_with_block(make_arrays: Any, write_hdf5: Any) -> None:
    path = write_hdf5(make_arrays())
    data = open_dataset(path)
    data.sample(2, 0)
    with h5py.File(path, "r+"):
        pass  # would fail while it is open for reading
    with data:
        data.sample(2, 0)
        with pytest.raises(OSError, match="open"):
            h5py.File(path, "w")
    with h5py.File(path, "r+"):
        pass
