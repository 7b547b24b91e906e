"""Pickles of transitions or episodes, as DI-engine writes them, with torch tensors or arrays in them.

A pickle can only be read as a whole, so that it stays in memory as long as the data set is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.flat import FlatReader
from rlwandb_callbacks.datasets.formats.memory import open_arrays
from rlwandb_callbacks.datasets.formats.replay_buffers.saved import is_saved_buffer, saved_reader
from rlwandb_callbacks.datasets.formats.transition_lists import to_arrays
from rlwandb_callbacks.datasets.safe_pickle.file import read_pickle


class _PickleOpener:
    """Reads the file on first use, and again in another process.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._arrays: dict[str, object] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"_path": self._path, "_arrays": None}

    @contextmanager
    def __call__(self) -> Iterator[FlatReader]:
        if self._arrays is None:
            self._arrays = dict(to_arrays(read_pickle(Path(self._path)), self._path))
        if is_saved_buffer(self._path, self._arrays, self._arrays.__getitem__):
            yield saved_reader(self._path, self._arrays)
            return
        with open_arrays(self._arrays, self._path) as reader:
            yield reader


def open_pickle(path: Path) -> OfflineDataset:
    """Opens a pickle, or a file of ``torch.save``, of transitions or episodes.

    Raises:
        DatasetError: If it is damaged, holds more than data, or arrays are missing or do not fit together.
    """
    return OfflineDataset(name=str(path), layout="di-engine-pickle", opener=_PickleOpener(str(path)), file=str(path))
