"""Errors name the file, what was found in it, and what is allowed."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rlwandb_callbacks import ConfigError
from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.errors import DatasetError


def assert_refused(source: Any, *parts: str, dataset_format: str | None = None) -> None:
    with pytest.raises(DatasetError) as caught:
        open_dataset(source, dataset_format)
    for part in (*parts, *([str(source)] if isinstance(source, Path) else [])):
        assert re.search(part, str(caught.value)) or part in str(caught.value), (part, str(caught.value))
    assert isinstance(caught.value, ConfigError)


def test_missing_file_suggests_the_nearest_name(make_arrays: Any, write_hdf5: Any, tmp_path: Path) -> None:
    write_hdf5(make_arrays(), "hopper_medium.hdf5")
    assert_refused(tmp_path / "hopper-medium.hdf5", "does not exist", "Did you mean 'hopper_medium.hdf5'")
    assert_refused(tmp_path / "nowhere" / "a.hdf5", "does not exist")


def test_minari_id_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mujoco/pendulum/expert-v0/data").mkdir(parents=True)
    (tmp_path / "mujoco/pendulum/expert-v0/data/metadata.json").write_text("{}")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert_refused(
        "mujoco/pendulum/exprt-v0",
        "minari download mujoco/pendulum/exprt-v0",
        "Did you mean 'mujoco/pendulum/expert-v0'",
    )


def test_minari_data_set_of_arrow_files(tmp_path: Path) -> None:
    (tmp_path / "a/data/0").mkdir(parents=True)
    (tmp_path / "a/data/metadata.json").write_text('{"data_format": "arrow"}')
    assert_refused(tmp_path / "a", "stored as arrow", "allowed is hdf5", "pyarrow.dataset")


def test_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/notes.txt").write_text("x")
    assert_refused(tmp_path / "a", "folder without data", "notes.txt", "data/main_data.hdf5")


def test_hdf5_file_of_unknown_layout(write_hdf5: Any) -> None:
    path = write_hdf5({"images": np.zeros((3, 2)), "labels": np.zeros(3), "more": {"a": np.zeros(1)}})
    assert_refused(path, "no known layout", r"images \(3, 2\)", r"more \(group\)", "d4rl", "minari", "di-engine", "npz")
    assert_refused(path, "no observations and no actions and no rewards", "images, labels, more", dataset_format="d4rl")
    assert_refused(path, "no groups episode_0", "images", dataset_format="minari")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    for content in (b"", b"hello, world", b"PK\x03\x04 not a zip", b"\x93NUMPY", bytes(5000)):
        (tmp_path / "a.hdf5").write_bytes(content)
        assert_refused(tmp_path / "a.hdf5", "no known layout", "Known layouts: d4rl")
    assert_refused(tmp_path / "a.hdf5", "is not an HDF5 file", dataset_format="d4rl")
    assert_refused(tmp_path / "a.hdf5", "not a complete .npz file", dataset_format="npz")
    assert_refused(tmp_path / "a.hdf5", "not a complete pickle", dataset_format="di-engine-pickle")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_truncated_hdf5_file(kept: float, make_arrays: Any, write_hdf5: Any) -> None:
    path = write_hdf5(make_arrays((500, 500)))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert_refused(path, "is cut off or damaged", "Copy or create it again")


def test_damaged_chunk_is_an_error_when_it_is_read(make_arrays: Any, write_hdf5: Any) -> None:
    path = write_hdf5(make_arrays((500, 500)), compression="gzip", chunks=True)
    with h5py.File(path) as file:
        start, size = (getattr(file["observations"].id.get_chunk_info(0), part) for part in ("byte_offset", "size"))
    content = bytearray(path.read_bytes())
    content[start : start + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read"):
        open_dataset(path).sample(10, 0)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals", "timeouts"])
def test_arrays_of_unequal_length(name: str, make_arrays: Any, write_hdf5: Any, tmp_path: Path) -> None:
    arrays = make_arrays()
    arrays[name] = arrays[name][:-1]
    np.savez(tmp_path / "a.npz", **arrays)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays))
    for source in (write_hdf5(arrays), tmp_path / "a.npz", tmp_path / "a.pkl", arrays):
        assert_refused(source, "unequal length", rf"{name} \(9,")


def test_episodes_of_unequal_arrays(write_hdf5: Any) -> None:
    good = {"observations": np.zeros((4, 2)), "actions": np.zeros(3), "rewards": np.zeros(3)}
    assert_refused(
        write_hdf5({"episode_0": good, "episode_1": good | {"actions": np.zeros(2)}}), "episode_1", "actions has 2 rows"
    )
    assert_refused(
        write_hdf5({"episode_0": good | {"observations": np.zeros((6, 2))}}), "observations has 6 rows", "3 or 4"
    )
    assert_refused(
        write_hdf5({"episode_0": {key: good[key] for key in ("actions", "rewards")}}), "episode_0 has no observations"
    )
    other = good | {"observations": np.zeros((4, 5))}
    with pytest.raises(DatasetError, match=r"shape \(5,\) in episode_1 and \(2,\) in episode_0"):
        open_dataset(write_hdf5({"episode_0": good, "episode_1": other})).sample(6, 0)


def test_zero_rows(make_arrays: Any, write_hdf5: Any, tmp_path: Path) -> None:
    arrays = {name: array[:0] for name, array in make_arrays().items()}
    np.savez(tmp_path / "a.npz", **arrays)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([]))
    group = {"observations": np.zeros((1, 2)), "actions": np.zeros(0), "rewards": np.zeros(0)}
    for source in (
        write_hdf5(arrays),
        tmp_path / "a.npz",
        tmp_path / "a.pkl",
        arrays,
        [],
        write_hdf5({"episode_0": group}, "b"),
    ):
        assert_refused(source, "zero transitions")


def test_data_set_of_one_row(make_arrays: Any, write_hdf5: Any) -> None:
    arrays = {name: array[:1] for name, array in make_arrays().items()}
    for source in (arrays, write_hdf5(arrays)):
        data = open_dataset(source)
        assert (data.num_transitions, data.num_episodes, len(data.sample(10, 0))) == (1, 1, 1)
        assert len(data.warnings) == 1
        assert "No step is marked as the end of an episode" in data.warnings[0]


def test_object_arrays(make_arrays: Any, tmp_path: Path) -> None:
    arrays = make_arrays()
    objects = np.array([[1.0], [1.0, 2.0], *[[0.0]] * 8], dtype=object)
    for name in ("observations", "actions"):
        assert_refused(arrays | {name: objects}, f"{name} holds object values")
        np.savez(tmp_path / "a.npz", **(arrays | {name: objects}))
        assert_refused(tmp_path / "a.npz", f"{name} holds object values", "allowed are arrays of numbers")
    assert_refused(arrays | {"observations": np.array(["a"] * 10)}, "observations holds <U1")
    assert_refused(arrays | {"observations": [[1.0], [1.0, 2.0]]}, "observations is not a regular array")


def test_truncated_npz_file(make_arrays: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **make_arrays((500,)))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:8000])
    assert_refused(tmp_path / "a.npz", "not a complete .npz file", dataset_format="npz")


def test_rewards_and_marks_of_wrong_shape_or_value(make_arrays: Any) -> None:
    arrays = make_arrays()
    assert_refused(arrays | {"rewards": np.zeros((10, 3))}, r"rewards has shape \(10, 3\)", r"\(N,\) or \(N, 1\)")
    assert_refused(arrays | {"rewards": 3.0}, "rewards is a single number")
    with pytest.raises(DatasetError, match=r"terminals holds 2\.0; allowed are 0 and 1"):
        open_dataset(arrays | {"terminals": np.full(10, 2.0)}).episodes()


def test_transitions_that_do_not_fit_together(tmp_path: Path) -> None:
    row = {"obs": np.zeros(2), "action": 0, "reward": 1.0}
    assert_refused([row, {"obs": np.zeros(2), "action": 0}], "transition 1 has no rewards", "Keys found: obs, action")
    assert_refused(
        [row, row | {"obs": np.zeros(3)}], r"obs has shape \(3,\) in transition 1 and \(2,\) in transition 0"
    )
    assert_refused([1, 2], "transition 0 is a int", "dict with keys such as obs")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps("text"))
    assert_refused(tmp_path / "a.pkl", "holds a str")


def test_sources_of_unknown_kind(make_arrays: Any, tmp_path: Path) -> None:
    assert_refused(3, "cannot be read from a value of type int")
    assert_refused(iter([]), "cannot be read from a value of type list_iterator", "__len__")
    assert_refused(make_arrays(), "dataset_format is 'd4l'", "Did you mean 'd4rl'", dataset_format="d4l")
    assert_refused(make_arrays(), "dataset_format is 'npz', which needs a path", dataset_format="npz")
    (tmp_path / "a").write_bytes(b"x")
    assert_refused(
        str(tmp_path / "a"), "dataset_format is 'memory', which is not read from a path", dataset_format="memory"
    )


@pytest.mark.parametrize("count", [0, -3])
def test_sample_count_below_one(count: int, make_arrays: Any) -> None:
    with pytest.raises(DatasetError, match=f"count is {count}"):
        open_dataset(make_arrays()).sample(count, 0)


def test_missing_h5py_names_the_install_command(
    make_arrays: Any, write_hdf5: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_hdf5(make_arrays())
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    assert_refused(path, "pip install", r"rlwandb-callbacks\[offline\]")
