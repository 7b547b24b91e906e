"""Recognizes what has caused an error in logging, and says what to do about it."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlwandb_callbacks.errors import RemoteError, message_of


@dataclass(frozen=True)
class FailureCause:
    """A cause that makes many kinds of work fail.

    Attributes:
        name: Identifies the cause; one warning is given for each.
        remedy: What has happened, and what to do.
    """

    name: str
    remedy: str


RUN_FINISHED = FailureCause(
    "run finished",
    "The W&B run was finished while training goes on (by wandb.finish() or wandb.teardown(), or by a further "
    "wandb.init()), so nothing more is written to it. Finish it after trainer.fit.",
)
WANDB_ENDED = FailureCause(
    "wandb-core ended",
    "W&B's own process (wandb-core) has ended, as a process does that is killed or runs out of memory, so nothing more "
    "is written to this run. Earlier rows are in its folder, except for those of the last seconds (up to 15), and "
    "`wandb sync` uploads them (with --include-online if the run was online); logs/debug-core.log there may name the "
    "reason.",
)
DISK_FULL = FailureCause(
    "disk full",
    "The disk is full: free space, or set run.dir, record_path or TMPDIR to a folder that has room. While the disk of "
    "the run's folder is full, numbers are lost too.",
)
FILE_TOO_LARGE = FailureCause(
    "file too large",
    "The size of files is limited: raise the limit (`ulimit -f unlimited`).",
)
NOT_WRITABLE = FailureCause(
    "not writable",
    "The folder cannot be written to: change its permissions, or set run.dir, record_path or TMPDIR to another one.",
)
TOO_MANY_FILES = FailureCause(
    "too many open files",
    "This process may open no more files: raise the limit (`ulimit -n`), or look for files that your code leaves open.",
)
BY_ERRNO = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EFBIG: FILE_TOO_LARGE,
    errno.EROFS: NOT_WRITABLE,
    errno.EMFILE: TOO_MANY_FILES,
    errno.ENFILE: TOO_MANY_FILES,
}
BY_TEXT = {  # of programs, and of errors that another process has sent
    "No space left on device": DISK_FULL,
    "File too large": FILE_TOO_LARGE,
    "Read-only file system": NOT_WRITABLE,
}
CONNECTION_ERRORS = ("MailboxClosedError", "HandleAbandonedError", "SockClientClosedError")  # of W&B's versions


def find_cause(error: BaseException) -> FailureCause | None:
    """Returns the cause of an error, or that of the error behind it; None if it is not one of the known causes.

    Example:
        >>> find_cause(OSError(28, "No space left on device", "/data/a.png")).name
        'disk full'
        >>> find_cause(ValueError("boom"))
    """
    causes = (_own_cause(each) for each in _chain(error))
    return next((cause for cause in causes if cause is not None), None)


def has_advice(error: BaseException) -> bool:
    """Returns whether the message of an error says what to do about the folder that it names.

    Example:
        >>> has_advice(OSError("a.mp4 cannot be written: Read-only file system. Set record_path to another folder."))
        True
    """
    message = message_of(error)
    return "record_path" in message or "ulimit" in message


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__


def _own_cause(error: BaseException) -> FailureCause | None:
    message = message_of(error)
    if isinstance(error, ConnectionError) or type(error).__name__ in CONNECTION_ERRORS:
        return WANDB_ENDED if _is_raised_in(error, "wandb") else None
    if isinstance(error, OSError):
        if isinstance(error, PermissionError) and _is_in_read_only_folder(error.filename):
            return NOT_WRITABLE
        known = BY_ERRNO.get(error.errno) if error.errno is not None else None
        return known or _cause_in(message)
    if isinstance(error, RemoteError):
        return _cause_in(message)
    if type(error).__module__.split(".")[0] == "wandb" and "is finished" in message:
        return RUN_FINISHED
    if type(error).__name__ == "AlreadyJoinedError" or "inside async loop" in message:  # after wandb.teardown()
        return RUN_FINISHED if _is_raised_in(error, "wandb") else None
    return None


def _cause_in(message: str) -> FailureCause | None:
    return next((cause for text, cause in BY_TEXT.items() if text in message), None)


def _is_raised_in(error: BaseException, package: str) -> bool:
    """Returns whether an error came through the code of a package."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(str(frame.f_globals.get("__name__")).split(".")[0] == package for frame, _ in frames)


def _is_in_read_only_folder(path: object) -> bool:
    """Returns whether a file cannot be created, rather than read, as its folder cannot be written to."""
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    folder = next((each for each in Path(os.fsdecode(path)).absolute().parents if each.exists()), None)
    return folder is not None and not os.access(folder, os.W_OK)
