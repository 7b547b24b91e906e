"""Each remedy in a message is followed, and gives the right episodes."""

from __future__ import annotations

import io
import json
import pathlib
import pickle
import re
import sys
import textwrap
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rlwandb_callbacks
from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from rlwandb_callbacks.errors import DatasetError

Transition = namedtuple("Transition", ["state", "action", "next_state", "reward"])  # noqa: PYI024  # as users write it
STEPS = [
    Transition(np.full(2, i, np.float32), i % 2, None if i % 4 == 3 else np.full(2, i + 1.0), 1.0 + i)
    for i in range(10)
]
LENGTHS, RETURNS = [4, 4, 2], [10.0, 26.0, 19.0]  # 1+2+3+4, 5+6+7+8, 9+10


class ReplayBuffer:
    def __init__(self) -> None:
        self.size, self.storage = 10, {"s": np.stack([step.state for step in STEPS]), "r": np.arange(1.0, 11)}


def message_of(source: Any, **options: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        open_dataset(source, **options)
    return str(caught.value)


def follow(code: str, **names: Any) -> None:
    exec(textwrap.dedent(code), {"rlwandb_callbacks": rlwandb_callbacks, "numpy": np, **names})


def assert_right(data: OfflineDataset) -> None:
    assert data.episodes().lengths.tolist() == LENGTHS
    assert data.episodes().returns.tolist() == RETURNS
    assert data.warnings == ()


@pytest.mark.parametrize("save", ["pickle", "torch"])
def test_pickle_of_named_tuples_is_converted_as_its_error_says(save: str, tmp_path: Path) -> None:
    path = tmp_path / "replay.pkl"
    if save == "pickle":
        path.write_bytes(pickle.dumps(STEPS))
    else:
        torch.save(STEPS, path)
    message = message_of(path)
    code = re.search(r"rlwandb_callbacks\.open_dataset\(.*?\)\.save\(\"data\.npz\"\)", message)
    assert code is not None
    assert code[0].count("torch.load") == (save == "torch")
    follow(code[0], pickle=pickle, torch=torch, pathlib=pathlib)
    assert_right(open_dataset("data.npz"))


def test_pickle_of_a_replay_buffer_is_converted_as_its_error_says(tmp_path: Path) -> None:
    (tmp_path / "replay.pkl").write_bytes(pickle.dumps(ReplayBuffer()))
    message = message_of(tmp_path / "replay.pkl")
    call = message[message.index("numpy.savez") :]
    assert call == 'numpy.savez("data.npz", observations=…, actions=…, rewards=…, terminals=…).'
    buffer = pickle.loads((tmp_path / "replay.pkl").read_bytes())
    ends = np.isin(np.arange(10), [3, 7])
    for array in ("buffer.storage['s']", "buffer.storage['r'] % 2", "buffer.storage['r']", "ends"):
        call = call.replace("…", array, 1)
    follow(call.rstrip("."), buffer=buffer, ends=ends)
    assert_right(open_dataset("data.npz"))


def test_torch_file_of_another_protocol_is_saved_again_as_its_error_says(tmp_path: Path) -> None:
    rows = [{"obs": step.state, "action": 0, "reward": step.reward, "done": step.next_state is None} for step in STEPS]
    torch.save(rows, tmp_path / "a.pt", pickle_protocol=4)
    assert "save it by torch.save without pickle_protocol" in message_of(tmp_path / "a.pt")
    torch.save(rows, tmp_path / "a.pt")
    assert_right(open_dataset(tmp_path / "a.pt"))


class Table:
    """What ``pyarrow.dataset.dataset(file).to_table()`` returns: one row more than there are steps."""

    def __init__(self, file: Path, format: str) -> None:  # noqa: A002  # pyarrow's name
        assert format in ("ipc", "parquet")
        self._rows = pickle.loads(file.read_bytes())  # written by this test

    def to_table(self) -> Table:
        return self

    def to_pylist(self) -> list[dict[str, Any]]:
        return self._rows


def write_minari(folder: Path, episodes: list[list[dict[str, Any]]], stored_as: str, space: Any) -> str:
    """Writes episodes as Minari does, with a row of padding behind each; returns what opening them says."""
    for index, steps in enumerate(episodes):
        padding = dict.fromkeys(steps[-1], 0) | {"observations": steps[-1]["observations"]}
        (folder / f"data/{index}").mkdir(parents=True)
        (folder / f"data/{index}/part-0.{stored_as}").write_bytes(pickle.dumps([*steps, padding]))
        (folder / f"data/{index}/metadata.json").write_text("{}")
    metadata = {"data_format": stored_as, "jpeg_encoding": True, "observation_space": json.dumps(space)}
    (folder / "data/metadata.json").write_text(json.dumps(metadata))
    return message_of(folder)


@pytest.fixture
def pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pyarrow")
    module.dataset = SimpleNamespace(dataset=Table)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyarrow", module)
    monkeypatch.setitem(sys.modules, "pyarrow.dataset", module.dataset)


@pytest.mark.usefixtures("pyarrow")
@pytest.mark.parametrize("stored_as", ["arrow", "parquet"])
def test_minari_data_of_arrow_files_are_converted_as_the_error_says(stored_as: str, tmp_path: Path) -> None:
    lengths = [3, 32_800, 2, 1, 5, 6, 7, 8, 9, 10, 11, 12]  # Minari's own reader cuts the second after 32,767 steps
    episodes = []
    for index, length in enumerate(lengths):
        row = {"observations": [0.5, index], "actions": index % 2, "rewards": 1.0 + index, "infos": {"a": 1}}
        episodes.append([row | {"terminations": 0, "truncations": step == length - 1} for step in range(length)])
    message = write_minari(tmp_path, episodes, stored_as, {"type": "Box", "shape": [2], "dtype": "float32"})
    assert "cuts episodes of more than 32,767 steps" in message
    follow(message[message.index("    from pathlib") :])
    data = open_dataset("data.npz")
    assert data.episodes().lengths.tolist() == lengths
    assert data.episodes().returns.tolist() == [length * (1.0 + i) for i, length in enumerate(lengths)]
    assert data.episodes().truncated.all()
    assert not data.episodes().terminated.any()
    assert data.observation_shape == (2,)


@pytest.mark.usefixtures("pyarrow")
@pytest.mark.parametrize("shape", [(2, 3), (4, 33, 33), (33, 40, 3)])
def test_converted_minari_data_have_the_pictures_and_shapes_of_their_space(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    flat: Any = np.full(shape, 128, np.uint8).reshape(-1).tolist()
    if min(shape[:2]) > 31:  # Minari stores these as JPEG
        file = io.BytesIO()
        Image.new("RGB", (shape[1], shape[0]), (128, 128, 128)).save(file, "JPEG")
        flat = file.getvalue()
    row = {"observations": flat, "actions": 1, "rewards": 1.0, "terminations": True, "truncations": False}
    message = write_minari(tmp_path, [[row], [row]], "arrow", {"type": "Box", "shape": shape, "dtype": "uint8"})
    follow(message[message.index("    from pathlib") :])
    data = open_dataset("data.npz")
    assert (data.observation_shape, data.num_episodes) == (shape, 2)
    assert np.abs(data.sample(2, 0).observations.astype(int) - 128).max() <= 1


def test_folder_names_the_file_in_it(tmp_path: Path) -> None:
    open_dataset(STEPS).save(tmp_path / "steps.npz")
    (tmp_path / "a_readme.txt").write_text("x")
    found = re.search(r"give the path of the file, such as (.*)\.$", message_of(tmp_path))
    assert found is not None
    assert_right(open_dataset(found[1]))


@pytest.mark.parametrize("trailing", [(), (1,)], ids=["(T, n)", "(T, n, 1)"])
def test_arrays_with_an_axis_of_environments(trailing: tuple[int, ...]) -> None:
    # Three environments, 10 steps: episodes end after 4 and 8 steps in the first, after 6 in the others.
    dones = np.zeros((10, 3, *trailing))
    dones[[3, 7], 0] = dones[5, 1:] = 1
    arrays = {
        "observations": np.random.default_rng(0).normal(size=(10, 3, 2)),
        "actions": np.zeros((10, 3, 1)),
        "rewards": np.ones((10, 3, *trailing)) * np.array([1, 10, 100]).reshape(3, *[1] * len(trailing)),
        "dones": dones,
    }
    message = message_of(arrays)
    code = re.search(r"\(step, environment\), save each as (.*?), with episode_ids=(.*?) beside", message)
    assert code is not None
    flat = {name: eval(code[1], {"array": array}) for name, array in arrays.items()}
    data = open_dataset(flat | {"episode_ids": eval(code[2], {"numpy": np})})
    assert data.episodes().lengths.tolist() == [4, 4, 2, 6, 4, 6, 4]
    assert data.episodes().returns.tolist() == [4, 4, 2, 60, 40, 600, 400]
    np.testing.assert_array_equal(data.sample(30, 0).observations[:10], arrays["observations"][:, 0])


def test_arrays_with_an_axis_of_episodes() -> None:
    rewards = np.arange(12.0).reshape(3, 4)
    arrays = {"obs": np.random.default_rng(0).normal(size=(3, 4, 2)), "action": np.ones((3, 4, 1)), "reward": rewards}
    code = re.search(r"\(episode, step\), save each as (.*?), with episode_ids=(.*)\.$", message_of(arrays))
    assert code is not None
    flat = {name: eval(code[1], {"array": array}) for name, array in arrays.items()}
    data = open_dataset(flat | {"episode_ids": eval(code[2], {"numpy": np})})
    assert data.episodes().lengths.tolist() == [4, 4, 4]
    assert data.episodes().returns.tolist() == [6, 22, 38]


def test_object_arrays_are_saved_again_as_one_array_of_numbers() -> None:
    rows = np.empty(10, dtype=object)
    rows[:] = [step.state for step in STEPS]
    rest = {"actions": np.zeros(10), "rewards": np.arange(1.0, 11), "dones": np.isin(np.arange(10), [3, 7])}
    assert "Save it as one array of numbers, with rows of equal shape" in message_of({"obs": rows, **rest})
    assert_right(open_dataset({"obs": np.stack(rows.tolist()), **rest}))


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self) -> Iterator[Transition]:
        return iter(STEPS)

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError


def test_iterable_data_set_is_given_as_a_list() -> None:
    dataset = Stream()
    assert "give the list of its transitions, list(dataset)" in message_of(dataset)
    assert_right(open_dataset(list(dataset)))


def test_marks_that_are_not_understood_are_replaced_as_the_warning_says() -> None:
    arrays = {
        "obs": np.random.default_rng(0).normal(size=(10, 2)),
        "action": np.zeros(10),
        "reward": np.arange(1.0, 11),
    }
    (first, _) = open_dataset(arrays | {"demo_start": np.zeros(10)}).warnings
    assert "terminals, timeouts and dones (0 or 1 per row), episode_ids, or episode_lengths" in first
    last = np.isin(np.arange(10), [3, 7])
    for marks in (
        {"terminals": last},
        {"timeouts": last},
        {"dones": last},
        {"episode_ids": np.repeat([5, 7, 9], LENGTHS)},
        {"episode_lengths": np.array(LENGTHS)},
    ):
        assert_right(open_dataset(arrays | marks))
