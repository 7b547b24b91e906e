"""Coverage of intervals of the interquartile mean on samples of known distributions: ``python -m benchmarks.coverage``.

Prints a table in Markdown. A cell is the percentage of evaluations whose 95 % interval holds the true interquartile
mean; in parentheses, if below 100, that of the evaluations that have an interval at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from rlwandb_callbacks.evaluation.intervals import iqm_interval

Samples: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, tuple[int, int]], Samples]

EPISODES = (4, 5, 6, 8, 10, 12, 16, 20, 32, 100)
RESAMPLES = 1_000
DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "Student's t, 2 degrees of freedom": lambda rng, shape: rng.standard_t(2, size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "lognormal": lambda rng, shape: rng.lognormal(size=shape),
    "0 or 1, p = .5": lambda rng, shape: rng.binomial(1, 0.5, size=shape).astype(np.float64),
    "0 or 1, p = .7": lambda rng, shape: rng.binomial(1, 0.7, size=shape).astype(np.float64),
    "0 or 1, p = .9": lambda rng, shape: rng.binomial(1, 0.9, size=shape).astype(np.float64),
    "0, 1 or 2": lambda rng, shape: rng.integers(0, 3, size=shape).astype(np.float64),
    "normal, 60 % capped at 500": lambda rng, shape: np.minimum(500.0, rng.normal(520.0, 78.0, size=shape)),
    "normal, 90 % capped at 500": lambda rng, shape: np.minimum(500.0, rng.normal(600.0, 78.0, size=shape)),
}
LARGE_SAMPLE = (1, 4_000_000)  # whose interquartile mean counts as the true one
KNOWN_TO_A_DIGIT = {"normal", "Student's t, 2 degrees of freedom", *(name for name in DISTRIBUTIONS if name[0] == "0")}


def iqm(samples: Samples) -> Samples:
    """Returns the interquartile mean over the last axis."""
    count, cut = samples.shape[-1], samples.shape[-1] // 4
    return np.asarray(np.sort(samples, axis=-1)[..., cut : count - cut].mean(axis=-1))


def by_trimmed_t(samples: Samples) -> tuple[float, float]:
    """Returns the t interval of the trimmed mean, whatever samples are equal."""
    count, cut = len(samples), len(samples) // 4
    kept, ordered = count - 2 * cut, np.sort(samples)
    deviation = np.clip(ordered, ordered[cut], ordered[count - cut - 1]).std(ddof=1)
    margin = float(stdtrit(kept - 1, 0.975)) * deviation * np.sqrt((count - 1) / (kept * (kept - 1)))
    return float(iqm(samples) - margin), float(iqm(samples) + margin)


def by_bootstrap(samples: Samples) -> tuple[float, float]:
    """Returns the percentile-bootstrap interval, which rliable draws."""
    rng = np.random.default_rng(0)
    means = iqm(samples[rng.integers(len(samples), size=(RESAMPLES, len(samples)))])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


METHODS: dict[str, Callable[[Samples], tuple[float, float] | None]] = {
    "this package": iqm_interval,
    "t interval alone": by_trimmed_t,
    "percentile bootstrap": by_bootstrap,
}


def cell(method: Callable[[Samples], tuple[float, float] | None], evaluations: Samples, truth: float) -> str:
    """Returns the coverage of a method in percent."""
    found = [interval for interval in map(method, evaluations) if interval is not None]
    if not found:
        return "–"
    tolerance = 1e-12 * abs(truth)
    held = np.mean([low - tolerance <= truth <= high + tolerance for low, high in found])
    percentages = [round(100 * share) for share in (held, len(found) / len(evaluations))]
    return str(percentages[0]) + (f" ({percentages[1]})" if percentages[1] < 100 else "")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--evaluations", type=int, default=2_000, help="number of evaluations for each cell")
    arguments = parser.parse_args()
    print("| returns | method |", " | ".join(map(str, EPISODES)), "|")
    print("|---|---|" + "---|" * len(EPISODES))
    for name, draw in DISTRIBUTIONS.items():
        rng = np.random.default_rng(0)
        truth = float(iqm(draw(rng, LARGE_SAMPLE))[0])
        truth = round(truth, 1) if name in KNOWN_TO_A_DIGIT else truth
        drawn = [draw(rng, (arguments.evaluations, count)) for count in EPISODES]
        for method, compute in METHODS.items():
            cells = [cell(compute, evaluations, truth) for evaluations in drawn]
            print(f"| {name} | {method} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
