"""Lines of the table: what is measured, against what, and what is to be reached."""

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
    """A comparison of us with a peer.

    Args:
        what: What of ours is measured.
        against: What it is compared with.
        target: The ratio ours / theirs to reach; None where the line is there to be read only.
        measure: Measures both sides, one right after the other: ours, theirs. It is given the number of the pair, so
            that lines may share what they measure together.
        pairs: How often.
        unit: ``s`` or ``B``.
        ours_at_most: A bound of our side alone, in ``unit``.
        note: What the reader should know of the measurement.
        profile: Runs our side alone under a profiler, where the target is missed; see :func:`whole`.
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
    """What came out of a line.

    Args:
        line: The line.
        pairs: Ours and theirs, in the order in which they were measured.
        failure: Why there are none.
        profile: The functions of ours that took most of the time, where the target was missed.
    """

    line: Line
    pairs: list[Pair] = field(default_factory=list)
    failure: str = ""
    profile: str = ""

    @property
    def ratios(self) -> list[float]:
        return sorted(ours / theirs for ours, theirs in self.pairs)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def sides(self) -> Pair:
        ours, theirs = zip(*self.pairs, strict=True)
        return statistics.median(ours), statistics.median(theirs)

    @property
    def is_reached(self) -> bool:
        if self.failure:
            return False
        target, bound = self.line.target, self.line.ours_at_most
        return (target is None or self.ratio <= target) and (bound is None or self.sides[0] <= bound)


def run(line: Line, pairs: int | None = None) -> Result:
    """Measures a line; whatever fails in it is written down and ends nothing else."""
    result = Result(line)
    try:
        result.pairs = [line.measure(number) for number in range(pairs or line.pairs)]
    except Exception as error:  # noqa: BLE001  # the other lines are still worth measuring
        traceback.print_exc()
        result.failure = f"{type(error).__name__}: {error}"
    if result.pairs and not result.is_reached and line.profile is not None:
        with contextlib.suppress(Exception):  # numbers count without it
            result.profile = profile_of(line.profile)
    return result


def whole(work: Callable[[], object]) -> Callable[[cProfile.Profile], object]:
    """Profiles all of a piece of work."""
    return lambda profiler: profiler.runcall(work)


def profile_of(work: Callable[[cProfile.Profile], object], *, rows: int = 14) -> str:
    """The functions in which most CPU time of this thread is spent."""
    profiler = cProfile.Profile(time.thread_time)
    work(profiler)
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(rows)
    table = text.getvalue().split("ncalls", 1)[-1]
    return (
        "ncalls" + re.sub(r"/\S*(site-packages|rlwandb_callbacks|benchmarks|lib/python[\d.]+)/", r"\1/", table).rstrip()
    )


def in_words(value: float, unit: str) -> str:
    """Writes a measured value in a fitting unit.

    Example:
        >>> in_words(0.0021, "s"), in_words(3 * 2**20, "B")
        ('2.10 ms', '3.00 MiB')
    """
    steps = (
        [("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)] if unit == "s" else [("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)]
    )
    name, size = next((step for step in steps if abs(value) >= step[1]), steps[-1])
    return f"{value / size:.3g} {name}" if abs(value / size) >= 100 else f"{value / size:.2f} {name}"
