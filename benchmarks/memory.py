"""Peak memory of a function in a new process: ``python -m benchmarks.memory module:function``."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

POLL_SECONDS = 0.01


def peak_bytes(work: str) -> float:
    """Returns the peak memory that a function adds to its imported module, child processes included, in bytes.

    Args:
        work: Import path of the function, ``package.module:function``.
    """
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", work]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(process.stdout.splitlines()[-1])


def held_bytes() -> int:
    """Returns the memory of this process and its descendants; shared memory counts once."""
    return sum(proportional_bytes(pid) for pid in process_tree(os.getpid()))


def proportional_bytes(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(text.split()[1]) * 1024 for text in rollup.splitlines() if text.startswith("Pss:")), 0)


def process_tree(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        children = []
    return [pid, *(below for child in children for below in process_tree(child))]


def main() -> None:
    module, function = sys.argv[1].split(":")
    work = getattr(importlib.import_module(module), function)
    peak, finished = 0, threading.Event()
    before = held_bytes()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(POLL_SECONDS):
            peak = max(peak, held_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    finished.set()
    watcher.join()
    print(max(peak - before, 1))


if __name__ == "__main__":
    main()
