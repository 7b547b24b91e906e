"""Recognizes the layout of offline data by its content, and opens it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlwandb_callbacks.config import DATASET_FORMATS
from rlwandb_callbacks.core.secrets import without_secrets_in
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.data_frames import columns_of, is_data_frame
from rlwandb_callbacks.datasets.formats.field_names import LAYOUTS, aliases_of, has_required_fields, listed
from rlwandb_callbacks.datasets.formats.hdf5 import EPISODE_GROUP, open_flat_hdf5, open_hdf5
from rlwandb_callbacks.datasets.formats.hdf5_opening import is_hdf5
from rlwandb_callbacks.datasets.formats.memory import open_mapping
from rlwandb_callbacks.datasets.formats.minari import find_installed, looks_like_id, open_minari
from rlwandb_callbacks.datasets.formats.npz import open_npz
from rlwandb_callbacks.datasets.formats.pickles import open_pickle
from rlwandb_callbacks.datasets.formats.recorded_steps import open_recording, recorded_columns
from rlwandb_callbacks.datasets.formats.records import is_record
from rlwandb_callbacks.datasets.formats.replay_buffers.names import number_keys
from rlwandb_callbacks.datasets.formats.replay_buffers.recognize import open_replay_buffer
from rlwandb_callbacks.datasets.formats.replay_buffers.saved import is_skrl_file
from rlwandb_callbacks.datasets.formats.replay_buffers.tianshou import is_tianshou_file, open_tianshou_file
from rlwandb_callbacks.datasets.formats.replay_buffers.torchrl_folder import is_torchrl_folder, open_torchrl_folder
from rlwandb_callbacks.datasets.formats.torch_dataset import open_torch_dataset
from rlwandb_callbacks.datasets.formats.transition_lists import to_arrays
from rlwandb_callbacks.datasets.limits import require_regular_file
from rlwandb_callbacks.datasets.safe_pickle.file import is_torch_zip, is_zip, looks_like_pickle
from rlwandb_callbacks.errors import DatasetError, nearest

_OBJECT_FORMATS = ("memory", "torch")
_KNOWN = (
    "d4rl (HDF5 with observations, actions, rewards, terminals, timeouts), minari (folder with data/main_data.hdf5, or "
    "HDF5 with groups episode_0, episode_1, …), di-engine (HDF5 with obs, action, reward, done), di-engine-pickle "
    "(list of transitions or of episodes), hdf5 and npz (with any of these names), tianshou's save_hdf5, and folders "
    "of TorchRL's dumps"
)

_OTHER_KINDS = {
    b"PAR1": "a Parquet file; give its table as a DataFrame",
    b"ARROW1": "an Arrow file; give its table as a DataFrame",
    b"\x93NUMPY": "a single .npy array; save all arrays by numpy.savez",
    b"\x1f\x8b": "compressed by gzip; decompress it first",
    b"BZh": "compressed by bzip2; decompress it first",
    b"\xfd7zXZ": "compressed by xz; decompress it first",
    b"(\xb5/\xfd": "compressed by zstd; decompress it first",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x7fELF": "a program",
    b"version https://": "a pointer of Git LFS; fetch the file by git lfs pull",
}


def open_dataset(source: Any, dataset_format: str | None = None) -> OfflineDataset:
    """Opens offline data of any known layout.

    Args:
        source: Path of a file or folder; id of a Minari data set that is installed here; mapping of arrays; DataFrame;
            list of transitions or of episodes (dicts, named tuples, objects with attributes, or tuples
            (s, a, r, s', done)); ``torch.utils.data.Dataset`` of transitions; replay buffer of tianshou,
            Stable-Baselines3, TorchRL, skrl, cpprb or d3rlpy, or of one's own with a position and a fill level.
        dataset_format: Of a path one of ``d4rl``, ``minari``, ``di-engine``, ``di-engine-pickle``, ``hdf5``, ``npz``;
            of other sources ``memory`` or ``torch``. By default it is recognized by the content.

    Raises:
        DatasetError: If the source does not exist, its layout or ``dataset_format`` is unknown, arrays are missing,
            empty, of unequal length or hold objects, the file is damaged, or a pickle holds more than data.
        OSError: If the file may not be read.

    Example:
        >>> open_dataset({"obs": [[0.0], [1.0]], "action": [0, 1], "reward": [1.0, 1.0], "done": [0, 1]}).num_episodes
        1
    """
    known = (*DATASET_FORMATS, *_OBJECT_FORMATS)
    if dataset_format is not None and dataset_format not in known:
        raise DatasetError(
            f"dataset_format is {dataset_format!r}; allowed are {', '.join(known)}, or None to "
            f"recognize it by the content.{nearest(str(dataset_format), known)}"
        )
    if isinstance(source, OfflineDataset):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source), dataset_format)
    if isinstance(source, np.lib.npyio.NpzFile):
        source = dict(source)  # each access reads the array again
    return _open_object(source, dataset_format)


def _open_object(source: Any, dataset_format: str | None) -> OfflineDataset:
    if dataset_format not in (None, *_OBJECT_FORMATS):
        raise DatasetError(
            f"dataset_format is {dataset_format!r}, which needs a path, not a value of type {type(source).__name__}."
        )
    if dataset_format != "torch":
        if is_data_frame(source):
            return _open_columns(columns_of(source), "the DataFrame")
        if names := getattr(getattr(source, "dtype", None), "names", None):
            return open_mapping({name: source[name] for name in names}, "the structured array")
        if (buffer := open_replay_buffer(source)) is not None:
            return buffer
        if isinstance(source, Mapping):
            return _open_columns(source, "arrays in memory")
        if isinstance(source, Sequence) and (columns := recorded_columns(source)) is not None:
            return open_recording(columns, "the list")
        if isinstance(source, Sequence) or (not hasattr(source, "__getitem__") and is_record(source)):
            return open_mapping(to_arrays(source, "the list"), "the list")
    if dataset_format != "memory" and hasattr(source, "__getitem__"):
        return open_torch_dataset(source)
    raise DatasetError(
        f"Offline data cannot be read from a value of type {type(source).__name__}; allowed are a path, the id of a "
        "Minari data set, a mapping of arrays, a DataFrame, a list of transitions or episodes, a torch Dataset of "
        "transitions with __len__ and __getitem__, or a replay buffer with a position and a fill level."
    )


def _open_columns(columns: Mapping[str, Any], name: str) -> OfflineDataset:
    recorded = recorded_columns(columns)
    return open_mapping(columns, name) if recorded is None else open_recording(recorded, name)


def _open_path(source: str, dataset_format: str | None) -> OfflineDataset:
    path = Path(source).expanduser()
    if not path.exists():
        if looks_like_id(source) and dataset_format in (None, "minari"):
            return open_minari(find_installed(source), name=source)
        raise _missing(source, path)
    if dataset_format in _OBJECT_FORMATS:
        raise DatasetError(f"dataset_format is {dataset_format!r}, which is not read from a path such as {source}.")
    if not path.is_dir():
        require_regular_file(path)
    return _OPENERS[dataset_format or _recognize(path)](path)


def _missing(source: str, path: Path) -> DatasetError:
    if "://" in source:
        address = without_secrets_in(source)
        return DatasetError(f"{address} is not a local file. Download it, and give the path of the file or folder.")
    siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    return DatasetError(
        f"{source} does not exist (looked in {path.parent.absolute()}).{nearest(path.name, siblings)} Allowed are a "
        "file, a folder with a Minari data set, or the id of one that is installed, such as mujoco/pendulum/expert-v0."
    )


def _recognize(path: Path) -> str:
    """Returns the format of a file or folder."""
    if path.is_dir():
        return "torchrl" if is_torchrl_folder(path) else "minari"
    if is_hdf5(path):
        return _recognize_hdf5(path)
    if is_zip(path):
        return "di-engine-pickle" if is_torch_zip(path) else "npz"
    if looks_like_pickle(path):
        return "di-engine-pickle"
    raise DatasetError(
        f"{path} has no known layout: it is neither HDF5 nor .npz nor a pickle ({path.stat().st_size:,} "
        f"bytes{_kind_of(path)}). Known layouts: {_KNOWN}."
    )


def _kind_of(path: Path) -> str:
    """Returns what a file is by its first bytes, which themselves are not shown: they may be those of a secret."""
    if is_skrl_file(path):
        return ", a memory of skrl, whose rows alternate between environments and do not tell which; save it as npz"
    with path.open("rb") as file:
        beginning = file.read(16)
    return next((f", {kind}" for signature, kind in _OTHER_KINDS.items() if beginning.startswith(signature)), "")


def _recognize_hdf5(path: Path) -> str:
    with open_hdf5(str(path)) as file:
        shapes = {name: file.shape_of(name) for name in file}  # None for groups
    if any(shape is None and EPISODE_GROUP.fullmatch(name) for name, shape in shapes.items()):
        return "minari"
    if is_tianshou_file(shapes):
        return "tianshou"
    for layout, required in LAYOUTS.items():
        if set(required) <= set(shapes):
            return layout
    if has_required_fields(shapes.keys()) or number_keys(shapes):
        return "hdf5"
    found = listed(f"{key} {shape or '(group)'}" for key, shape in shapes.items())
    raise DatasetError(f"{path} has no known layout. Keys found: {found}. Known layouts: {_KNOWN}.")


def _open_flat(path: Path, *, layout: str) -> OfflineDataset:
    opener = partial(open_flat_hdf5, str(path), aliases_of(layout))
    return OfflineDataset(name=str(path), layout=layout, opener=opener, file=str(path))


_OPENERS: dict[str, Callable[[Path], OfflineDataset]] = {
    "minari": open_minari,
    "tianshou": open_tianshou_file,
    "torchrl": open_torchrl_folder,
    "npz": open_npz,
    "di-engine-pickle": open_pickle,
    **{layout: partial(_open_flat, layout=layout) for layout in (*LAYOUTS, "hdf5")},
}
