"""A file by which a job in another process shows when it started and, if it takes too long, where it is."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STANDARD_LIBRARY = Path(os.__file__).parent
FRAME = re.compile(r'File "([^"]*)", line (\d+) in (\S+)')


@dataclass(frozen=True)
class Mark:
    """File of one job; written by the worker, and read by the process that waits for it.

    Args:
        path: Path of the file, which exists while the job runs, and if it ended with its process.
        max_seconds: Time after which the stacks of all threads are added to the file; None for never.
    """

    path: str
    max_seconds: float | None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Keeps the file while the block, which is the job, runs; a file that cannot be written is no error."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                file = stack.enter_context(Path(self.path).open("wb", buffering=0))
                stack.callback(self.remove)
                file.write(f"{time.monotonic()}\n".encode())
                if self.max_seconds is not None:
                    faulthandler.dump_traceback_later(self.max_seconds, file=file)
                    stack.callback(faulthandler.cancel_dump_traceback_later)
            yield

    def remove(self) -> None:
        """Removes the file, if there is one."""
        with contextlib.suppress(OSError):
            Path(self.path).unlink()

    def started(self) -> float | None:
        """Returns ``time.monotonic()`` of the start of the job; None if it is not known."""
        try:
            return float(self._text().split("\n", 1)[0])
        except ValueError:
            return None

    def place(self) -> str:
        """Returns where the main thread is, if the stacks were added to the file; else an empty string."""
        main_thread = self._text().rstrip().rpartition("\n\n")[2]  # the oldest thread comes last
        return describe_place([(file, int(line), function) for file, line, function in FRAME.findall(main_thread)])

    def _text(self) -> str:
        try:
            return Path(self.path).read_text(errors="replace")
        except OSError:
            return ""


def describe_place(frames: Sequence[tuple[str, int, str]]) -> str:
    """Returns the innermost function, and the one outside the standard library that called it, if that is another.

    Args:
        frames: File, line and function of each frame, the innermost one first.

    Example:
        >>> describe_place([(re.__file__, 3, "match"), ("/home/me/env.py", 12, "render"), ("/home/me/a.py", 5, "f")])
        'match (__init__.py, line 3), called by render (env.py, line 12)'
    """
    outside = (frame for frame in frames if not _is_standard(Path(frame[0])))
    shown = dict.fromkeys([*frames[:1], *itertools.islice(outside, 1)])
    return ", called by ".join(f"{function} ({Path(file).name}, line {line})" for file, line, function in shown)


def _is_standard(file: Path) -> bool:
    return STANDARD_LIBRARY in file.parents and "site-packages" not in file.parts
