"""Measures all comparisons, prints their table and writes ``benchmarks/RESULTS.md``: ``make bench``.

Machines are noisy, so both sides of a comparison run in turn, and the median of their ratios counts. Each module in
``MODULES`` defines its comparisons in ``LINES``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
import warnings
from pathlib import Path

# Networks and images are small: one thread on each side, whatever the machine has.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
os.environ["SDL_VIDEODRIVER"] = "dummy"

MODULES = ("metrics", "gradients", "videos", "video_files", "worker", "datasets", "run_files", "importing")
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Measures the selected lines; a run of all lines also writes the results file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", help="measure only lines whose text contains one of these words")
    parser.add_argument("--pairs", type=int, help="number of measurements of each line")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    from benchmarks import lines, report

    started = time.monotonic()
    selected = [line for name in MODULES for line in importlib.import_module(f"benchmarks.{name}").LINES]
    if arguments.only:
        selected = [line for line in selected if any(word in f"{line.what} {line.against}" for word in arguments.only)]
    results = []
    for line in selected:
        results.append(lines.run(line, arguments.pairs))
        print("  ".join(report.row(results[-1])), flush=True)
    print(f"\n{report.as_text(results)}")
    if not arguments.only:
        RESULTS.write_text(report.as_markdown(results, (time.monotonic() - started) / 60))
        print(f"\nwritten to {RESULTS}")


if __name__ == "__main__":
    main()
