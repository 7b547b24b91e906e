"""Trains for 10,000 updates while a W&B-compatible server is gone, slow or failing: ``python -m benchmarks.online``.

Prints one line per fault: the longest time that any hook took, what is missing in the local file, and the exit code.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))


def main() -> None:
    """Trains once for each fault."""
    from online_load import FAULTS, train_against
    from wandb_server import wandb_server

    parser = argparse.ArgumentParser(prog="python -m benchmarks.online", description=__doc__)
    parser.add_argument("faults", nargs="*", help=f"only these of: {', '.join(FAULTS)}")
    parser.add_argument("--updates", type=int, default=10_000, help="updates of each training")
    parser.add_argument("--evaluations", type=int, default=10, help="evaluations of each training")
    parser.add_argument("--finish-seconds", type=float, default=60.0, help="setting of the callback")
    parser.add_argument("--timeout", type=float, default=3600.0, help="longest time of each training, in seconds")
    parser.add_argument("--show-errors", action="store_true", help="print what the trainings wrote to standard error")
    arguments = parser.parse_args()
    with wandb_server() as server:
        for fault in arguments.faults or FAULTS:
            server.reset()
            with tempfile.TemporaryDirectory() as folder:
                report = train_against(
                    server,
                    fault,
                    Path(folder),
                    updates=arguments.updates,
                    evaluations=arguments.evaluations,
                    finish_seconds=arguments.finish_seconds,
                    executor="process",
                    timeout_seconds=arguments.timeout,
                )
            missing = (
                f"{report.missing_updates} updates, {report.missing_evaluations} evaluations,"
                f" {report.missing_pictures} pictures, {report.missing_videos} videos"
            )
            hook = f"longest hook {report.longest_hook_seconds:.2f} s ({report.longest_hook})"
            print(
                f"{fault:<15} {hook}, missing: {missing}, exit code {report.returncode}, {report.seconds:.0f} s",
                flush=True,
            )
            if arguments.show_errors:
                print(report.stderr, flush=True)


if __name__ == "__main__":
    main()
