"""The data set under a folder is found among what training writes there."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from rlwandb_callbacks.datasets.discover import find_dataset, no_dataset
from rlwandb_callbacks.errors import DatasetError
from rlwandb_callbacks.maps.jobs import MapMaker

ARRAYS: dict[str, Any] = {
    "observations": np.random.default_rng(0).normal(size=(30, 2)),
    "actions": np.arange(30) % 2,
    "rewards": np.ones(30),
    "terminals": np.arange(30) % 10 == 9,
}


def write_npz(path: Path) -> None:
    np.savez(path, **ARRAYS)


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[name] = array


def write_minari(path: Path) -> None:
    (path / "data").mkdir(parents=True)
    with h5py.File(path / "data" / "main_data.hdf5", "w") as file:
        for index in range(3):
            group = file.create_group(f"episode_{index}")
            for name in ("observations", "actions", "rewards"):
                group[name] = ARRAYS[name][:10]
    (path / "data" / "metadata.json").write_text(json.dumps({"data_format": "hdf5"}))


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(ARRAYS))


def write_torch(path: Path) -> None:
    torch.save({name: torch.as_tensor(array) for name, array in ARRAYS.items()}, path)


WRITERS = {
    "data.npz": write_npz,
    "data.hdf5": write_hdf5,
    "minari-v0": write_minari,
    "steps.pkl": write_pickle,
    "steps.pt": write_torch,
    "no_suffix": write_hdf5,
}


def fill_with_files_of_a_training(folder: Path) -> None:
    """Writes what this package, W&B, Lightning and users write beside the data."""
    write_npz(folder / "other.npz")
    data = find_dataset(str(folder))
    assert data is not None
    MapMaker(dataset=data, cache_folder=str(folder / "cache"))()
    assert len(list((folder / "cache").iterdir())) == 1
    (folder / "other.npz").unlink()
    for name in (
        "run_id/step_000000009_best.mp4",
        "run_id/step_000000009_best.png",
        "notes.txt",
        "config.yaml",
        "empty",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"" if name == "empty" else b"x" * 100)
    (folder / "wandb" / "run-1").mkdir(parents=True)
    write_npz(folder / "wandb" / "run-1" / "table.npz")
    write_npz(folder / ".unfinished.npz")
    torch.save({"state_dict": {"weight": torch.zeros(3)}, **ARRAYS}, folder / "last.ckpt")
    torch.save({"weight": torch.zeros(3)}, folder / "weights.pt")
    np.savez(folder / "evaluations.npz", timesteps=np.arange(3), results=np.zeros((3, 5)))


@pytest.mark.parametrize("depth", ["", "offline/expert"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_data_set_is_found_among_the_files_of_a_training(name: str, depth: str, tmp_path: Path) -> None:
    fill_with_files_of_a_training(tmp_path)
    assert find_dataset(str(tmp_path)) is None
    (tmp_path / depth).mkdir(parents=True, exist_ok=True)
    WRITERS[name](tmp_path / depth / name)
    data = find_dataset(str(tmp_path))
    assert data is not None
    assert data.num_episodes == 3
    assert data.episodes().returns.tolist() == [10.0, 10.0, 10.0]
    assert name in data.name


def test_several_data_sets_are_an_error_that_names_them(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz")
    write_minari(tmp_path / "b-v0")
    with pytest.raises(DatasetError, match=r"^2 data sets lie under") as caught:
        find_dataset(str(tmp_path))
    for part in (str(tmp_path / "a.npz"), str(tmp_path / "b-v0"), "Set dataset_path to one of them"):
        assert part in str(caught.value)
    assert find_dataset(str(tmp_path), "npz") is not None


def test_no_data_set_names_what_is_not_readable(tmp_path: Path) -> None:
    assert find_dataset(str(tmp_path / "nowhere")) is None
    assert "no offline data were found under" in no_dataset(str(tmp_path / "nowhere"))
    (tmp_path / "walks-v0" / "data").mkdir(parents=True)
    (tmp_path / "walks-v0" / "data" / "metadata.json").write_text('{"data_format": "arrow"}')
    (tmp_path / "broken.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    warning = no_dataset(str(tmp_path))
    assert f"{tmp_path / 'broken.hdf5'} is cut off or damaged" in warning
    assert "stored as arrow" in warning


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_npz(tmp_path / "elsewhere" / "a.npz")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "link").symlink_to(tmp_path / "elsewhere")
    assert find_dataset(str(tmp_path / "videos")) is None


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old format"])
def test_weights_are_not_read(is_zip: bool, tmp_path: Path) -> None:
    weights = {"actor.weight": torch.zeros(4_000_000), "critic.weight": torch.zeros(4_000_000)}
    for name in ("model.pt", "model.pth", "weights"):
        torch.save(weights, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    tracemalloc.start()
    try:
        assert find_dataset(str(tmp_path)) is None
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20  # a file has 32 MB
    finally:
        tracemalloc.stop()
    assert f"{tmp_path / 'model.pth'} has no observations, actions and rewards" in no_dataset(str(tmp_path))


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old format"])
def test_lists_of_tuples_that_torch_saved_are_found(is_zip: bool, tmp_path: Path) -> None:
    steps = [(torch.full((2,), 1.0 * row), 0, 1.0, torch.full((2,), row + 1.0), row % 10 == 9) for row in range(30)]
    torch.save(steps, tmp_path / "steps.pt", _use_new_zipfile_serialization=is_zip)
    data = find_dataset(str(tmp_path))
    assert data is not None
    assert data.episodes().lengths.tolist() == [10, 10, 10]
