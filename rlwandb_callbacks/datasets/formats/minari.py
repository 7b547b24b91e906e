"""Minari: a directory with ``data/main_data.hdf5`` and ``data/metadata.json``, or that HDF5 file alone.

Each episode is a group ``episode_i`` with ``observations`` (T + 1 of them, groups for dicts and tuples), ``actions``,
``rewards``, ``terminations`` and ``truncations`` (T each). Images may be stored as JPEG. Source: Farama Minari's
``hdf5_storage.py``, versions 0.4 and 0.5. Its Arrow and Parquet storages are not read; the error says how to convert
them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec, ContinuousActions, DiscreteActions
from rlwandb_callbacks.datasets.columns import Column, Rows
from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.episode_boundaries import StepBlock
from rlwandb_callbacks.datasets.formats.flat import Tree, joined
from rlwandb_callbacks.datasets.formats.hdf5 import open_hdf5
from rlwandb_callbacks.datasets.readers.hdf5_rows import Hdf5Column
from rlwandb_callbacks.datasets.readers.jpeg_rows import JpegColumn, holds_jpeg
from rlwandb_callbacks.errors import DatasetError, nearest

MAIN_FILE = "main_data.hdf5"
_GROUP = re.compile(r"episode_(\d+)")
_ID = re.compile(r"([\w-]+/)*[\w-]+-v\d+")
_REQUIRED = ("observations", "actions", "rewards")
_NAMED = 20


def installed_folder() -> Path:
    """Where Minari keeps its data sets: ``MINARI_DATASETS_PATH``, else ``~/.minari/datasets``."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def looks_like_id(source: str) -> bool:
    """Whether a text has the form of a Minari id, such as ``mujoco/pendulum/expert-v0``."""
    return _ID.fullmatch(source) is not None


def find_installed(dataset_id: str) -> Path:
    """Folder of a data set that is installed on this machine.

    Raises:
        DatasetError: If it is not; the message says how to install it.
    """
    folder = installed_folder()
    if (folder / dataset_id).is_dir():
        return folder / dataset_id
    installed = sorted(str(found.parents[1].relative_to(folder)) for found in folder.glob("**/data/metadata.json"))
    raise DatasetError(
        f"{dataset_id} is neither a file or folder nor a Minari data set that is installed in {folder} "
        f"(there: {', '.join(installed) or 'none'}).{nearest(dataset_id, installed)} To install it: minari download "
        f"{dataset_id}"
    )


def is_minari(shapes: Mapping[str, tuple[int, ...] | None]) -> bool:
    """Whether the names in an HDF5 file are those of Minari."""
    return any(_GROUP.fullmatch(name) and shape is None for name, shape in shapes.items())


def open_minari(path: Path, name: str | None = None) -> OfflineDataset:
    """Opens a data-set directory, its ``data`` folder, or the HDF5 file.

    Raises:
        DatasetError: If there is no data in it, or the data do not fit together.
    """
    folder = path / "data" if (path / "data").is_dir() else path
    file = folder / MAIN_FILE if folder.is_dir() else folder
    if not file.exists():
        raise _no_data(path, folder)
    metadata = _metadata(file.parent / "metadata.json") if file.name == MAIN_FILE else {}
    known = read_space(metadata.get("action_space"))
    opener = partial(open_episodes, str(file), known)
    return OfflineDataset(name=name or str(path), layout="minari", opener=opener, file=str(file))


def _no_data(path: Path, folder: Path) -> DatasetError:
    stored_as = _metadata(folder / "metadata.json").get("data_format")
    if stored_as:
        return DatasetError(
            f"{path} is a Minari data set stored as {stored_as}; allowed is hdf5. To convert it, read its "
            "episodes with minari.load_dataset and save their arrays, one episode behind the other, by numpy.savez as "
            "observations, actions, rewards, terminations and truncations."
        )
    names = sorted(item.name for item in path.iterdir())
    inside = ", ".join(names[:_NAMED] + ["…"] * (len(names) > _NAMED)) or "nothing"
    return DatasetError(
        f"{path} is a folder without data (in it: {inside}). A folder is read as a Minari data set, which has "
        f"data/{MAIN_FILE}; for other layouts give the path of the file."
    )


def _metadata(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the data can be read without
    return found if isinstance(found, dict) else {}


def read_space(text: Any) -> ActionSpec | None:
    """Names or bounds of an action space as Minari writes it; None for spaces of other kinds.

    Example:
        >>> read_space('{"type": "Discrete", "dtype": "int64", "start": 1, "n": 2}')
        DiscreteActions(names=('1', '2'), first=1)
    """
    try:
        space = json.loads(text)
        if space["type"] == "Discrete":
            first = int(space["start"])
            return DiscreteActions(tuple(str(first + index) for index in range(int(space["n"]))), first)
        if space["type"] == "Box":
            low, high = (np.array(space[side], dtype=np.float64).reshape(-1) for side in ("low", "high"))
            width = math.prod(space["shape"])
            return ContinuousActions(np.broadcast_to(low, width).copy(), np.broadcast_to(high, width).copy())
    except (KeyError, TypeError, ValueError):
        return None
    return None


@contextmanager
def open_episodes(path: str, known_actions: ActionSpec | None) -> Iterator[MinariOpened]:
    """Opens an HDF5 file with a group per episode."""
    with open_hdf5(path) as file:
        yield MinariOpened(file, path, known_actions)


class MinariOpened:
    """An open HDF5 file with a group per episode.

    Raises:
        DatasetError: If there are no episodes, or the arrays of one do not fit together.
    """

    tells_timeouts = True

    def __init__(self, file: Any, source: str, known_actions: ActionSpec | None) -> None:
        self.known_actions = known_actions
        self._file, self._source = file, source
        found = {int(match[1]): name for name in file if (match := _GROUP.fullmatch(name))}
        if not found:
            raise DatasetError(
                f"{source} has no groups episode_0, episode_1, … (keys found: {', '.join(file) or 'none'})."
            )
        names = [found[number] for number in sorted(found)]
        lengths = np.array([self._length(name) for name in names], dtype=np.int64)
        self._names = [name for name, length in zip(names, lengths.tolist(), strict=True) if length]
        if not self._names:
            raise DatasetError(f"{source} has zero transitions: its {len(names)} episodes have no steps.")
        self._lengths = lengths[lengths > 0]
        empty = len(names) - len(self._names)
        self.warnings = (f"{empty:,} episodes have no steps and are left out.",) if empty else ()
        self.observations, self.actions, self.rewards = (self._column(role) for role in _REQUIRED)
        if self.rewards.shape[1:] not in ((), (1,)):
            raise DatasetError(
                f"{source}: rewards of an episode have shape {(self._lengths[0], *self.rewards.shape[1:])}; allowed is "
                "one number per step."
            )

    def _length(self, name: str) -> int:
        group = self._file[name]
        missing = [role for role in _REQUIRED if role not in group]
        if missing:
            raise DatasetError(
                f"{self._source}: {name} has no {' and no '.join(missing)} (in it: {', '.join(group) or 'nothing'})."
            )
        steps = len(group["rewards"])
        allowed = {"actions": (steps,), "observations": (steps, steps + 1)}
        marks = {role: (steps,) for role in ("terminations", "truncations") if role in group}
        for role, counts in (allowed | marks).items():
            for place, count in _leaf_lengths(role, group[role]):
                if count not in counts:
                    raise DatasetError(
                        f"{self._source}: arrays of unequal length in {name}: {place} has {count} rows beside {steps} "
                        f"rewards; allowed is {' or '.join(map(str, counts))}."
                    )
        return steps

    def _column(self, role: str) -> Column:
        return _EpisodeColumn(self._file, role, self._names, self._lengths, self._source)

    def steps(self) -> Iterator[StepBlock]:
        for name, length in zip(self._names, self._lengths.tolist(), strict=True):
            group = self._file[name]
            last = np.zeros(length, dtype=bool)
            last[-1] = True
            yield StepBlock(
                rewards=np.asarray(group["rewards"][()], dtype=np.float64).reshape(-1),
                terminated=_marks(group, "terminations", length),
                truncated=_marks(group, "truncations", length),
                last=last,
            )


def _leaf_lengths(place: str, item: Any) -> Iterator[tuple[str, int]]:
    if hasattr(item, "keys"):
        for name in item:
            yield from _leaf_lengths(f"{place}/{name}", item[name])
    elif item.shape:
        yield place, item.shape[0]


def _marks(group: Any, name: str, length: int) -> NDArray[np.bool_]:
    if name not in group:
        return np.zeros(length, dtype=bool)
    return np.asarray(group[name][()], dtype=bool).reshape(-1)


class _EpisodeColumn:
    """One quantity of all episodes, one behind the other."""

    def __init__(self, file: Any, role: str, names: list[str], lengths: NDArray[np.int64], source: str) -> None:
        self._file, self._role, self._names, self._source = file, role, names, source
        self._ends = np.cumsum(lengths)
        first = self._of_episode(0)
        self.shape = (int(self._ends[-1]), *first.shape[1:])
        self.dtype = first.dtype

    def read(self, rows: Rows) -> NDArray[np.generic]:
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        episodes = np.searchsorted(self._ends, rows, side="right")
        edges = np.searchsorted(episodes, np.arange(len(self._names) + 1))
        for index in np.unique(episodes).tolist():
            low, high = edges[index], edges[index + 1]
            before = int(self._ends[index - 1]) if index else 0
            column = self._of_episode(index)
            if column.shape[1:] != self.shape[1:]:
                raise DatasetError(
                    f"{self._source}: {self._role} have shape {column.shape[1:]} in {self._names[index]} and "
                    f"{self.shape[1:]} in {self._names[0]}; allowed is one shape for all episodes."
                )
            out[low:high] = column.read(rows[low:high] - before)
        return out

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        return self.read(np.arange(low, high, dtype=np.int64))

    def _of_episode(self, index: int) -> Column:
        name = f"{self._names[index]}/{self._role}"
        return joined(self._role, _numbers_of(self._file[name]), f"{self._source}: {self._names[index]}")


def _numbers_of(item: Any) -> Column | Tree:
    """Columns of an array, or of a group without the texts in it, such as missions."""
    if hasattr(item, "keys"):
        return {name: _numbers_of(item[name]) for name in item if not _is_text(item[name])}
    return JpegColumn(item) if holds_jpeg(item) else Hdf5Column(item)


def _is_text(item: Any) -> bool:
    if hasattr(item, "keys"):
        return False
    import h5py

    return h5py.check_string_dtype(item.dtype) is not None
