"""Lines of the results table: what is measured, against which reference, and the target ratio."""

from __future__ import annotations

import contextlib
import cProfile
import io
import pstats
import re
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

Pair = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Comparison of one cost of this package with a reference.

    Args:
        what: What is measured on our side.
        against: The reference.
        target: Largest allowed ratio ours / reference; None for lines without a target.
        measure: Measures both sides, one right after the other, and returns ours and the reference. It gets the number
            of the pair, so that lines can share measurements.
        pairs: Number of measurements.
        unit: ``s`` or ``B``.
        ours_at_most: Upper bound for our side alone, in ``unit``.
        note: Explanation of the measurement.
        profile: Runs our side alone under a profiler, if the target is missed; see :func:`profile_call`.
    """

    what: str
    against: str
    target: float | None
    measure: Callable[[int], Pair]
    pairs: int = 3
    unit: str = "s"
    ours_at_most: float | None = None
    note: str = ""
    profile: Callable[[cProfile.Profile], object] | None = None


@dataclass
class Result:
    """Measurements of a line.

    Args:
        line: The line.
        pairs: Ours and the reference, in the order of measurement.
        failure: Error that ended the measurement; empty if there was none.
        profile: Functions of our side with the most CPU time, if the target was missed.
    """

    line: Line
    pairs: list[Pair] = field(default_factory=list)
    failure: str = ""
    profile: str = ""

    @property
    def ratios(self) -> list[float]:
        return sorted(ours / reference for ours, reference in self.pairs)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def sides(self) -> Pair:
        ours, reference = zip(*self.pairs, strict=True)
        return statistics.median(ours), statistics.median(reference)

    @property
    def is_reached(self) -> bool:
        if self.failure:
            return False
        target, bound = self.line.target, self.line.ours_at_most
        return (target is None or self.ratio <= target) and (bound is None or self.sides[0] <= bound)


def run(line: Line, pairs: int | None = None) -> Result:
    """Measures a line; an error is recorded in the result and does not stop other lines."""
    result = Result(line)
    try:
        result.pairs = [line.measure(number) for number in range(pairs or line.pairs)]
    except Exception as error:  # noqa: BLE001  # the other lines can still be measured
        traceback.print_exc()
        result.failure = f"{type(error).__name__}: {error}"
    if result.pairs and not result.is_reached and line.profile is not None:
        with contextlib.suppress(Exception):  # the measurements are valid without a profile
            result.profile = profile_of(line.profile)
    return result


def profile_call(work: Callable[[], object]) -> Callable[[cProfile.Profile], object]:
    """Makes a function that profiles a whole call, for `Line.profile`."""
    return lambda profiler: profiler.runcall(work)


def profile_of(work: Callable[[cProfile.Profile], object], *, rows: int = 14) -> str:
    """Returns a table of the functions with the most CPU time of this thread."""
    profiler = cProfile.Profile(time.thread_time)
    work(profiler)
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(rows)
    table = text.getvalue().split("ncalls", 1)[-1]
    return (
        "ncalls" + re.sub(r"/\S*(site-packages|rlwandb_callbacks|benchmarks|lib/python[\d.]+)/", r"\1/", table).rstrip()
    )


def format_value(value: float, unit: str) -> str:
    """Formats a measured value with a suitable unit.

    Example:
        >>> format_value(0.0021, "s"), format_value(3 * 2**20, "B")
        ('2.10 ms', '3.00 MiB')
    """
    scales = (
        [("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)] if unit == "s" else [("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)]
    )
    name, size = next((scale for scale in scales if abs(value) >= scale[1]), scales[-1])
    return f"{value / size:.3g} {name}" if abs(value / size) >= 100 else f"{value / size:.2f} {name}"
