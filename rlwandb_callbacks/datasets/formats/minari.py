"""Minari: a directory with ``data/main_data.hdf5`` and ``data/metadata.json``, or that HDF5 file alone.

Each episode is a group ``episode_i`` with ``observations`` (T + 1 of them, groups for dicts and tuples), ``actions``,
``rewards``, ``terminations`` and ``truncations`` (T each), or other names of these. Images may be stored as JPEG.
Source: Farama Minari's ``hdf5_storage.py``, versions 0.4 and 0.5. Arrow and Parquet files are refused; the error says
how to convert them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
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
from rlwandb_callbacks.datasets.formats.episode_marks import STRICT
from rlwandb_callbacks.datasets.formats.field_names import REQUIRED, find_fields, listed
from rlwandb_callbacks.datasets.formats.flat import Tree, join_columns
from rlwandb_callbacks.datasets.formats.hdf5 import EPISODE_GROUP, Hdf5Column, open_hdf5
from rlwandb_callbacks.datasets.formats.hdf5_items import Hdf5Group
from rlwandb_callbacks.datasets.formats.jpeg import JpegColumn, holds_jpeg
from rlwandb_callbacks.datasets.formats.minari_conversion import MAIN_FILE, no_data_error
from rlwandb_callbacks.datasets.limits import FileLimits, require_regular_file
from rlwandb_callbacks.datasets.unwritten_rows import RowChoice
from rlwandb_callbacks.errors import DatasetError, nearest

_ID = re.compile(r"([\w-]+/)*[\w-]+-v\d+")
_MAX_METADATA_BYTES = 16 * 2**20
_MAX_ACTIONS = 2**16  # discrete actions, or numbers in one, that a declared space may have


def looks_like_id(source: str) -> bool:
    """Returns whether a text has the form of a Minari id, such as ``mujoco/pendulum/expert-v0``."""
    return _ID.fullmatch(source) is not None


def find_installed(dataset_id: str) -> Path:
    """Returns the folder of a data set that is installed on this machine.

    Raises:
        DatasetError: If it is not installed; the message says how to install it.
    """
    folder = Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")
    if (folder / dataset_id).is_dir():
        return folder / dataset_id
    installed = sorted(str(found.parents[1].relative_to(folder)) for found in folder.glob("**/data/metadata.json"))
    raise DatasetError(
        f"{dataset_id} is neither a file or folder nor a Minari data set that is installed in {folder} "
        f"(installed: {', '.join(installed) or 'none'}).{nearest(dataset_id, installed)} To install it: minari "
        f"download {dataset_id}"
    )


def open_minari(path: Path, name: str | None = None) -> OfflineDataset:
    """Opens a data-set directory, its ``data`` folder, or the HDF5 file.

    Raises:
        DatasetError: If there is no data in it, or the data do not fit together.
    """
    folder = path / "data" if (path / "data").is_dir() else path
    file = folder / MAIN_FILE if folder.is_dir() else folder
    if not file.exists():
        raise no_data_error(path, folder, read_metadata(folder / "metadata.json"))
    metadata = read_metadata(file.parent / "metadata.json") if file.name == MAIN_FILE else {}
    declared = read_space(metadata.get("action_space"))
    opener = partial(_open_episodes, str(file), declared)
    return OfflineDataset(name=name or str(path), layout="minari", opener=opener, file=str(file))


def read_metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata of a Minari data set; empty if there are none that can be read."""
    try:
        require_regular_file(path)
        if path.stat().st_size > _MAX_METADATA_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # the data can be read without it
    return found if isinstance(found, dict) else {}


def read_space(text: Any) -> ActionSpec | None:
    """Returns names or bounds of an action space as Minari writes it; None for spaces of other kinds.

    Example:
        >>> read_space('{"type": "Discrete", "dtype": "int64", "start": 1, "n": 2}')
        DiscreteActions(names=('1', '2'), first=1)
    """
    try:
        space = json.loads(text)
        if space["type"] == "Discrete":
            first, count = int(space["start"]), int(space["n"])
            names = (str(first + index) for index in range(count))
            return DiscreteActions(tuple(names), first) if count <= _MAX_ACTIONS else None
        if space["type"] == "Box":
            low, high = (np.array(space[side], dtype=np.float64).reshape(-1) for side in ("low", "high"))
            width = math.prod(space["shape"])
            if width > _MAX_ACTIONS:
                return None
            return ContinuousActions(np.broadcast_to(low, width).copy(), np.broadcast_to(high, width).copy())
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None
    return None


@contextmanager
def _open_episodes(path: str, declared_actions: ActionSpec | None) -> Iterator[MinariReader]:
    with open_hdf5(path) as file:
        yield MinariReader(file, path, declared_actions)


class MinariReader:
    """An open HDF5 file with one group per episode.

    Args:
        file: The root group of an open file.
        source: Name of the data set in messages.
        declared_actions: The action space of the metadata, if there is one.

    Raises:
        DatasetError: If there are no episodes, or the arrays of one do not fit together.
    """

    marks_timeouts = True
    marks_every_end = True  # each group is one episode

    def __init__(self, file: Hdf5Group, source: str, declared_actions: ActionSpec | None) -> None:
        self.declared_actions = declared_actions
        self._file, self._source = file, source
        found = {int(match[1]): name for name in file if (match := EPISODE_GROUP.fullmatch(name))}
        if not found:
            raise DatasetError(f"{source} has no groups episode_0, episode_1, … (keys found: {listed(file)}).")
        names = [found[number] for number in sorted(found)]
        self._keys = dict(zip(REQUIRED, REQUIRED, strict=True)) | find_fields(file[names[0]])
        lengths = np.array([self._length(name) for name in names], dtype=np.int64)
        self._names = [name for name, length in zip(names, lengths.tolist(), strict=True) if length]
        if not self._names:
            raise DatasetError(f"{source} has zero transitions: its {len(names)} episodes have no steps.")
        self._lengths = lengths[lengths > 0]
        file.limits.check_rows(f"its {len(self._names):,} episodes", int(self._lengths.sum()))
        empty = len(names) - len(self._names)
        self.warnings = (f"Episodes without steps were left out: {empty:,}.",) if empty else ()
        self.observations, self.actions, self.rewards = (self._column(field) for field in REQUIRED)
        if self.rewards.shape[1:] not in ((), (1,)):
            raise DatasetError(
                f"{source}: rewards of an episode have shape {(self._lengths[0], *self.rewards.shape[1:])}; allowed is "
                "one number per step."
            )

    def _length(self, name: str) -> int:
        group = self._file[name]
        fields = (*REQUIRED, *(field for field in STRICT if field in self._keys))
        items = {field: group[self._keys[field]] for field in fields if self._keys[field] in group}
        if missing := [self._keys[field] for field in REQUIRED if field not in items]:
            raise DatasetError(
                f"{self._source}: {name} has no {' and no '.join(missing)} (it contains: {listed(group)})."
            )
        steps = _row_count(items["rewards"], f"{self._source}: rewards of {name}")
        for field, item in items.items():
            counts = (steps, steps + 1) if field == "observations" else (steps,)
            for array, count in _array_lengths(self._keys[field], item):
                if count not in counts:
                    raise DatasetError(
                        f"{self._source}: arrays of unequal length in {name}: {array} has {count} rows for {steps} "
                        f"rewards; allowed is {' or '.join(map(str, counts))}."
                    )
        return steps

    def _column(self, field: str) -> Column:
        return _EpisodeColumn(self._file, self._keys[field], self._names, self._lengths, self._source)

    def steps(self) -> Iterator[StepBlock]:
        for name, length in zip(self._names, self._lengths.tolist(), strict=True):
            group = self._file[name]
            last = np.zeros(length, dtype=bool)
            last[-1] = True
            terminals, timeouts, dones = (self._marks(group, self._keys.get(field), length) for field in STRICT)
            terminated = terminals if "terminals" in self._keys else dones & ~timeouts
            yield StepBlock(
                rewards=self._numbers(group, self._keys["rewards"], length).astype(np.float64),
                terminated=terminated,
                truncated=timeouts | (dones & ~terminated),
                last=last,
            )

    def _marks(self, group: Hdf5Group, name: str | None, length: int) -> NDArray[np.bool_]:
        if name is None or name not in group:
            return np.zeros(length, dtype=bool)
        return self._numbers(group, name, length).astype(bool)

    def _numbers(self, group: Hdf5Group, name: str, length: int) -> NDArray[np.generic]:
        """Reads an array of one number per step."""
        item = group[name]
        column = join_columns(name, {} if hasattr(item, "keys") else Hdf5Column(item, group.limits), self._source)
        if column.shape not in ((length,), (length, 1)):
            raise DatasetError(
                f"{self._source}: {name} of an episode have shape {column.shape}; allowed is one number per step."
            )
        return column.span(0, length).reshape(-1)

    def choose_rows(self) -> RowChoice:
        return RowChoice()  # each episode has its own arrays


def _row_count(item: Any, name: str) -> int:
    if not getattr(item, "shape", None):
        raise DatasetError(f"{name} are not an array; allowed is one number per step.")
    rows: int = item.shape[0]
    return rows


def _array_lengths(name: str, item: Any) -> Iterator[tuple[str, int]]:
    if hasattr(item, "keys"):
        for key in item:
            yield from _array_lengths(f"{name}/{key}", item[key])
    elif item.shape:
        yield name, item.shape[0]


class _EpisodeColumn:
    """One field of all episodes, one episode after the other."""

    def __init__(self, file: Hdf5Group, field: str, names: list[str], lengths: NDArray[np.int64], source: str) -> None:
        self._file, self._field, self._names, self._source = file, field, names, source
        self._ends = np.cumsum(lengths)
        first = self._episode(0)
        self.shape = (int(self._ends[-1]), *first.shape[1:])
        self.dtype = first.dtype

    def read(self, rows: Rows) -> NDArray[np.generic]:
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        episodes = np.searchsorted(self._ends, rows, side="right")
        edges = np.searchsorted(episodes, np.arange(len(self._names) + 1))
        for index in np.unique(episodes).tolist():
            low, high = edges[index], edges[index + 1]
            before = int(self._ends[index - 1]) if index else 0
            column = self._episode(index)
            if column.shape[1:] != self.shape[1:]:
                raise DatasetError(
                    f"{self._source}: {self._field} have shape {column.shape[1:]} in {self._names[index]} and "
                    f"{self.shape[1:]} in {self._names[0]}; allowed is one shape for all episodes."
                )
            out[low:high] = column.read(rows[low:high] - before)
        return out

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        return self.read(np.arange(low, high, dtype=np.int64))

    def _episode(self, index: int) -> Column:
        item = self._file[f"{self._names[index]}/{self._field}"]
        return join_columns(
            self._field, _column_or_tree(item, self._file.limits), f"{self._source}: {self._names[index]}"
        )


def _column_or_tree(item: Any, limits: FileLimits) -> Column | Tree:
    """Returns the column of an array, or those of a group without its texts, such as missions."""
    if hasattr(item, "keys"):
        children = {name: item[name] for name in item}
        return {name: _column_or_tree(child, limits) for name, child in children.items() if not _is_text(child)}
    return JpegColumn(item) if holds_jpeg(item, limits) else Hdf5Column(item, limits)


def _is_text(item: Any) -> bool:
    if hasattr(item, "keys"):
        return False
    import h5py

    return h5py.check_string_dtype(item.dtype) is not None
