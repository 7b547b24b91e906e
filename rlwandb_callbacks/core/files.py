"""Writes files whole, and checks that a folder takes files."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from rlwandb_callbacks.errors import ConfigError, sentence


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


def check_writable(folder: str, *, setting: str) -> None:
    """Makes a folder and a file in it, which is gone at once.

    Args:
        folder: Where files will be written.
        setting: What chose it, for the message.

    Raises:
        ConfigError: If either cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"{setting} is {folder!r}, where no file can be written: {sentence(error)} Set it to a folder that you "
            "may write to."
        ) from error
