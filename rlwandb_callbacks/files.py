"""Files that appear under their names only when they are whole."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Puts a file in its place once it is written; if that fails, an older one of that name stays as it is.

    Several processes may write the same file: who reads meanwhile sees the old one or a new one.

    Args:
        path: Of the file; its folder must exist.

    Yields:
        Where to write meanwhile: a hidden file beside it, of the same kind, that is removed if anything fails.

    Raises:
        OSError: If the file cannot be put in its place.
    """
    unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.part{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
