"""The fingerprint of the content of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from rlwandb_callbacks.datasets.columns import Column, row_bytes, spans
from rlwandb_callbacks.datasets.reader import DatasetReader

FULL_DIGEST_BYTES = 128 * 2**20
_DIGEST_BLOCKS = 1024
_DIGEST_BLOCK_BYTES = 64 * 2**10


def digest_of(reader: DatasetReader, file: str | None, heading: str) -> str:
    """Returns the fingerprint of a data set, 32 hexadecimal digits; of a large one it covers parts.

    Args:
        reader: The open data set.
        file: The file with the content, if there is one.
        heading: What is covered besides the content.
    """
    found = blake2b(heading.encode(), digest_size=16)
    for block in _content(reader, file):
        found.update(block)
    return found.hexdigest()


def _content(reader: DatasetReader, file: str | None) -> Iterator[bytes]:
    """Yields what a digest covers: the file, or the columns if there is none; then rewards and ends of all steps."""
    if file is not None:
        yield from _file_content(Path(file))
    else:
        yield from _column_content(reader.observations)
        yield from _column_content(reader.actions)
    for block in reader.steps():
        yield block.rewards.tobytes()
        yield np.packbits([block.terminated, block.truncated, block.last]).tobytes()


def _file_content(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    yield f"{size} ".encode()
    with path.open("rb", buffering=0) as file:
        if size <= FULL_DIGEST_BYTES:
            while block := file.read(2**20):
                yield block
            return
        for start in np.linspace(0, size - _DIGEST_BLOCK_BYTES, _DIGEST_BLOCKS, dtype=np.int64).tolist():
            file.seek(start)
            yield file.read(_DIGEST_BLOCK_BYTES)


def _column_content(column: Column) -> Iterator[bytes]:
    count, size = column.shape[0], row_bytes(column)
    yield f"{column.shape} {column.dtype.str} ".encode()
    if count * size <= FULL_DIGEST_BYTES:
        yield from (block.tobytes() for block in spans(column))
        return
    rows = max(1, _DIGEST_BLOCK_BYTES // size)
    for start in np.unique(np.linspace(0, max(count - rows, 0), _DIGEST_BLOCKS, dtype=np.int64)).tolist():
        yield column.span(start, min(start + rows, count)).tobytes()
