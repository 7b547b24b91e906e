"""Runs all benchmarks and prints one table: ``make bench``.

Machines are noisy, so both sides of a comparison run in turn and the median of their ratios counts.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable

from benchmarks import importing, metrics, videos

COMPARISONS: dict[str, Callable[[], tuple[float, float]]] = {
    "metrics on, CPU time added per training step / 5 × self.log + LearningRateMonitor": metrics.compare,
    "overlay of 300 frames / matplotlib drawing them": videos.compare_overlay,
    "10 CartPole episodes with 3 overlay videos / RecordVideo of all 10": videos.compare_evaluation,
    "import rlwandb_callbacks / import pytorch_lightning": importing.compare,
}
PAIRS = 3


def main() -> None:
    """Prints a row per comparison."""
    warnings.simplefilter("ignore")
    print(f"{'what / against what':<86}{'ours':>12}{'theirs':>12}{'ratio':>8}")
    for name, compare in COMPARISONS.items():
        pairs = [compare() for _ in range(PAIRS)]
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(mine / other for mine, other in pairs)
        print(f"{name:<86}{seconds(ours):>12}{seconds(theirs):>12}{ratio:>8.3f}", flush=True)


def seconds(value: float) -> str:
    """Writes a duration in a fitting unit."""
    if value < 1e-3:
        return f"{value * 1e6:.1f} µs"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


if __name__ == "__main__":
    main()
