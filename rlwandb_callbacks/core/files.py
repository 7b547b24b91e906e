"""Atomic writes, what they leave behind, and a check that a folder is writable."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import platform
import re
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

from rlwandb_callbacks.errors import ConfigError, sentence

UNFINISHED = re.compile(r"\..+\.(?:(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-)?[0-9a-f]{32}\.part(?:\.\w+)?", re.ASCII)
LEFT_BEHIND_SECONDS = 86_400.0


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, and moves the file to ``path`` if no error is raised.

    The temporary file is a hidden one beside ``path``, whose folder must exist, with the same suffix. An error leaves
    an older file unchanged. Several processes may write the same file; readers see the old or the new content, never a
    part. A process that is killed leaves the temporary file behind, for :func:`remove_unfinished`.
    """
    unfinished = path.with_name(f".{path.stem}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex}.part{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@functools.cache
def _machine() -> str:
    """Returns eight hexadecimal digits for all processes whose ids this process can look up."""
    known = [platform.node()]
    with contextlib.suppress(OSError):  # Linux only: containers may share the name of a machine, and machines a name
        known += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return f"{zlib.crc32(' '.join(known).encode()):08x}"


def remove_unfinished(folder: Path) -> list[Path]:
    """Removes temporary files of :func:`atomic_write` that ended processes left in a folder, and in its subfolders.

    Files of processes on other machines, and others whose process may be running, are removed if they were not written
    to for a day. Deeper folders are not searched, and nothing is an error.

    Returns:
        The removed files.
    """
    removed = []
    for where in [folder, *(Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False))]:
        for entry in _entries(where):
            with contextlib.suppress(OSError):
                if (found := UNFINISHED.fullmatch(entry.name)) is not None and _is_left_behind(entry, found):
                    Path(entry.path).unlink()
                    removed.append(Path(entry.path))
    return removed


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_left_behind(entry: os.DirEntry[str], found: re.Match[str]) -> bool:
    if not entry.is_file(follow_symlinks=False):
        return False
    if found["machine"] == _machine() and not _is_running(int(found["process"])):
        return True
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFT_BEHIND_SECONDS


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where signal 0 ends a process; an open file cannot be removed there
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # not on Linux
        return False


def folder_in(parent: Path, name: str) -> Path:
    """Returns a folder directly in ``parent``, for files of a run or a user's name.

    What would lead elsewhere is replaced: separators, names of dots only, and a symbolic link of that name, beside
    which a folder with a number is used. The folder need not exist.

    Example:
        >>> folder_in(Path("videos"), "../x").as_posix(), folder_in(Path("videos"), "..").as_posix()
        ('videos/.._x', 'videos/__')
    """
    safe = re.sub(r"[/\\\x00]", "_", name)
    safe = safe if safe.strip(".") else "_" * len(safe)
    names = itertools.chain([safe], (f"{safe}-{number}" for number in itertools.count(2)))
    return next(folder for folder in (parent / name for name in names) if folder == parent or not folder.is_symlink())


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
