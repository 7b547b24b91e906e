"""Fingerprints of content that are quick for large files too."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlwandb_callbacks.datasets.columns import Column, row_bytes, spans
from rlwandb_callbacks.datasets.episode_boundaries import StepBlock

WHOLE_BYTES = 128 * 2**20
_BLOCKS = 1024
_BLOCK_BYTES = 64 * 2**10


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def digest_of(heading: str, *, file: str | None, columns: Iterable[Column], steps: Iterable[StepBlock]) -> str:
    """Fingerprint of a heading, a file or columns, and of all steps: 32 hexadecimal digits."""
    found = blake2b(heading.encode(), digest_size=16)
    if file is not None:
        _add_file(found, Path(file))
    for column in columns:
        _add_column(found, column)
    for block in steps:
        found.update(block.rewards.tobytes())
        found.update(np.packbits([block.terminated, block.truncated, block.last]).tobytes())
    return found.hexdigest()


def _add_file(found: _Hash, path: Path) -> None:
    size = path.stat().st_size
    found.update(f"{size} ".encode())
    with path.open("rb", buffering=0) as file:
        if size <= WHOLE_BYTES:
            while piece := file.read(2**20):
                found.update(piece)
            return
        for start in np.linspace(0, size - _BLOCK_BYTES, _BLOCKS, dtype=np.int64).tolist():
            file.seek(start, os.SEEK_SET)
            found.update(file.read(_BLOCK_BYTES))


def _add_column(found: _Hash, column: Column) -> None:
    count, size = column.shape[0], row_bytes(column)
    found.update(f"{column.shape} {column.dtype.str} ".encode())
    if count * size <= WHOLE_BYTES:
        for piece in spans(column):
            found.update(piece.tobytes())
        return
    rows = max(1, _BLOCK_BYTES // size)
    for start in np.unique(np.linspace(0, max(count - rows, 0), _BLOCKS, dtype=np.int64)).tolist():
        found.update(column.span(start, min(start + rows, count)).tobytes())
