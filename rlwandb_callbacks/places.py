"""Folders that files will be written to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rlwandb_callbacks.errors import ConfigError, sentence


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
