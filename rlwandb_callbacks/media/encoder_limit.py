"""Ends a program that does not take its input."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOOKS_PER_LIMIT = 8
LONGEST_SECONDS_BETWEEN_LOOKS = 5.0


class TimeLimit:
    """Kills a process if one call that waits for it takes too long; the call then fails, as its pipe is broken.

    Args:
        process: The process.
        max_seconds: Time limit of a call in seconds, > 0; None for no limit.

    Attributes:
        was_exceeded: Whether the process was killed.
    """

    def __init__(self, process: subprocess.Popen[Any], max_seconds: float | None) -> None:
        self.was_exceeded = False
        self._process = process
        self._since = float("inf")  # time.monotonic() at the start of the call
        self._has_ended = threading.Event()
        if max_seconds is not None:
            threading.Thread(target=self._watch, args=(max_seconds,), name="rlwandb-ffmpeg", daemon=True).start()

    def _watch(self, max_seconds: float) -> None:
        while not self._has_ended.wait(min(max_seconds / LOOKS_PER_LIMIT, LONGEST_SECONDS_BETWEEN_LOOKS)):
            if time.monotonic() - self._since > max_seconds:
                self.was_exceeded = True
                _kill_tree(self._process)
                return

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Limits the time of a block."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = float("inf")

    def end(self) -> None:
        """Ends the watch."""
        self._has_ended.set()


def _kill_tree(process: subprocess.Popen[Any]) -> None:
    """Kills a process and, on Linux, those that it started: a script may have started the program."""
    children = _children(process.pid)
    process.kill()
    for child in children:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)


def _children(process: int) -> list[int]:
    try:
        found = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    children = [int(child) for child in found.split()]
    return [*children, *(each for child in children for each in _children(child))]
