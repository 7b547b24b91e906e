"""What a process holds: memory, open files, threads and child processes, read from Linux's /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl


class Resources(NamedTuple):
    """What this process holds.

    Attributes:
        memory_bytes: Resident memory.
        files: Open files.
        threads: Threads, those of libraries included.
        children: Child processes.
    """

    memory_bytes: int
    files: int
    threads: int
    children: int


def held_resources() -> Resources:
    """Returns what this process holds now."""
    process = Path("/proc/self")
    resident_pages = int((process / "statm").read_text().split()[1])
    tasks = list((process / "task").iterdir())
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    return Resources(
        resident_pages * os.sysconf("SC_PAGE_SIZE"), len(list((process / "fd").iterdir())), len(tasks), len(children)
    )


class WatchesResources(pl.Callback):
    """Callback that notes what is held after some of the validations.

    Args:
        every_n_validations: Number of validations between two notes.
    """

    def __init__(self, every_n_validations: int) -> None:
        self._every_n_validations, self._count = every_n_validations, 0
        self.seen: list[Resources] = []

    def on_validation_end(self, *_: Any) -> None:
        self._count += 1
        if self._count % self._every_n_validations == 0:
            self.seen.append(held_resources())
