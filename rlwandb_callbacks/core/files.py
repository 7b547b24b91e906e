"""Atomic writes, and a check that a folder is writable."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from rlwandb_callbacks.errors import ConfigError, sentence


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, and moves the file to ``path`` if no error is raised.

    The temporary file is a hidden one beside ``path``, whose folder must exist, with the same suffix. An error leaves
    an older file unchanged. Several processes may write the same file; readers see the old or the new content, never a
    part.
    """
    unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.part{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_writable(folder: str, *, setting: str) -> None:
    """Creates a folder, and a temporary file in it; an error names the setting that chose the folder."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"{setting} is {folder!r}, where no file can be written: {sentence(error)} Set it to a writable folder."
        ) from error
