"""Peak memory of a piece of work, in a process of its own: ``python -m benchmarks.memory module:function``."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

POLL_SECONDS = 0.004


def peak_bytes(work: str) -> float:
    """Bytes that a function adds to what its module holds once imported, processes that it starts included.

    Args:
        work: ``package.module:function``.
    """
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", work]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.splitlines()[-1])


def resident_bytes() -> int:
    """Resident memory of this process and of those below it."""
    return sum(resident_pages(pid) for pid in tree(os.getpid())) * os.sysconf("SC_PAGE_SIZE")


def resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def tree(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        children = []
    return [pid, *(below for child in children for below in tree(child))]


def main() -> None:
    module, function = sys.argv[1].split(":")
    work = getattr(importlib.import_module(module), function)
    peak, over = 0, threading.Event()
    before = resident_bytes()

    def watch() -> None:
        nonlocal peak
        while not over.wait(POLL_SECONDS):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    over.set()
    watcher.join()
    print(max(peak - before, 1))


if __name__ == "__main__":
    main()
