"""Cost of the import."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.lines import Line, Pair

TIMED_IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def compare(_: int) -> Pair:
    """Compares the wall seconds of our import and of Lightning's, each in a new process."""
    return import_seconds("rlwandb_callbacks"), import_seconds("pytorch_lightning")


def import_seconds(module: str) -> float:
    """Returns the wall seconds of importing one module in a new process."""
    command = [sys.executable, "-W", "ignore", "-c", TIMED_IMPORT.format(module)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


LINES = [Line("`import rlwandb_callbacks`", "`import pytorch_lightning`", 0.02, compare, pairs=5)]
