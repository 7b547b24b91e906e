"""DI-engine's pickles, and others like them: transitions or episodes, with torch tensors or arrays in them.

A pickle can only be read as a whole, so that it stays in memory as long as the data set is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.flat import FlatOpened
from rlwandb_callbacks.datasets.formats.memory import open_arrays
from rlwandb_callbacks.datasets.formats.transition_lists import columns_from
from rlwandb_callbacks.datasets.safe_pickle.file import read_pickle


class _PickleOpener:
    """Reads the file when it is first needed, and anew in another process.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._arrays: dict[str, object] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"_path": self._path, "_arrays": None}

    @contextmanager
    def __call__(self) -> Iterator[FlatOpened]:
        if self._arrays is None:
            self._arrays = dict(columns_from(read_pickle(Path(self._path)), self._path))
        with open_arrays(self._arrays, self._path) as opened:
            yield opened


def open_pickle(path: Path) -> OfflineDataset:
    """Opens a pickle, or what torch saved, of transitions or episodes.

    Raises:
        DatasetError: If it is damaged, wants more than data, or arrays are missing or do not fit together.
    """
    return OfflineDataset(name=str(path), layout="di-engine-pickle", opener=_PickleOpener(str(path)), file=str(path))
