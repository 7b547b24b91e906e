"""Maps of data sets in files, so that the second run of a sweep need not make them again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlwandb_callbacks.core.files import whole_file
from rlwandb_callbacks.maps.data_map import DataMap, arrays_of, map_of

FORMAT = 1
# What reading a damaged file may raise.
_DAMAGED = (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


def cache_file(folder: str | Path, settings: Mapping[str, Any]) -> Path:
    """Where a map is kept.

    Args:
        folder: Of the cache.
        settings: Everything that decides what the map looks like: the data's digest, and how it is made.
    """
    text = json.dumps({**settings, "format": FORMAT}, sort_keys=True)
    return Path(folder) / f"map_{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def load_map(file: Path) -> DataMap | None:
    """Reads a map; None where there is none, or where the file is damaged."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return map_of(dict(arrays))
    except _DAMAGED:  # NotImplementedError, of an unknown compression, is a RuntimeError
        return None


def save_map(file: Path, data_map: DataMap) -> None:
    """Writes a map, in one step.

    A folder that cannot be written to, or a full disk, costs the next run time and nothing else.
    """
    arrays: dict[str, Any] = arrays_of(data_map)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as unfinished, unfinished.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
