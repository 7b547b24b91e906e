"""How often the alert on falling returns fires, with and without a fall: ``python -m benchmarks.return_falls``.

Prints two tables in Markdown. A cell is the percentage of trainings with an alert, of 50 evaluations by default. In the
first table the agent does not get worse, in the second it does after 30 evaluations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.callbacks.alerts.return_history import ReturnHistory, read_returns

Samples: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, tuple[int, int]], Samples]

EPISODES = (1, 2, 4, 8, 20)
BEFORE, AFTER = 30, 20
LIMIT = 4.0


def success(probability: float) -> Draw:
    """Returns of 0 and 1."""
    return lambda rng, shape: rng.binomial(1, probability, shape).astype(np.float64)


def normal(mean: float, std: float) -> Draw:
    """Normal returns."""
    return lambda rng, shape: rng.normal(mean, std, shape)


def exponential(mean: float) -> Draw:
    """Exponential returns."""
    return lambda rng, shape: rng.exponential(mean, shape)


def improving(rng: np.random.Generator, shape: tuple[int, int]) -> Samples:
    """Normal returns whose mean rises from 0 to 1,000."""
    return rng.normal(0.0, 150.0, shape) + np.linspace(0.0, 1000.0, shape[0])[:, None]


def jumping(rng: np.random.Generator, shape: tuple[int, int]) -> Samples:
    """Normal returns of a policy whose mean return jumps from evaluation to evaluation."""
    return rng.normal(0.0, 150.0, shape) + rng.normal(0.0, 100.0, (shape[0], 1))


def equal(mean: float, std: float) -> Draw:
    """Returns that are equal within an evaluation and vary between evaluations."""
    return lambda rng, shape: np.repeat(rng.normal(mean, std, (shape[0], 1)), shape[1], axis=1)


UNCHANGED: dict[str, Draw] = {
    **{f"success, p = {p}": success(p) for p in (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)},
    "normal, 0 ± 150": normal(0.0, 150.0),
    "exponential, 100": exponential(100.0),
    "Student's t, 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, shape),
    "lognormal, σ = 1.5": lambda rng, shape: rng.lognormal(0.0, 1.5, shape),
    "improves from 0 to 1,000, ± 150": improving,
    "jumps by ± 100 between evaluations, ± 150": jumping,
    **{
        f"equal episodes, 200 ± {100 * jitter:g} %": equal(200.0, 200.0 * jitter)
        for jitter in (0.0025, 0.01, 0.05, 0.2)
    },
}
FALLS: dict[str, tuple[Draw, Draw]] = {
    "success .7 → .1": (success(0.7), success(0.1)),
    "success .9 → .5": (success(0.9), success(0.5)),
    "success .5 → .1": (success(0.5), success(0.1)),
    "normal 200 → 100, ± 50": (normal(200.0, 50.0), normal(100.0, 50.0)),
    "normal 0 → -300, ± 150": (normal(0.0, 150.0), normal(-300.0, 150.0)),
    "exponential 100 → 20": (exponential(100.0), exponential(20.0)),
    "equal episodes 500 → 100, ± 1": (equal(500.0, 1.0), equal(100.0, 1.0)),
    "equal episodes 500 → 400, ± 5": (equal(500.0, 5.0), equal(400.0, 5.0)),
}


def alerts(evaluations: Samples) -> bool:
    """Returns whether a training with these returns, ``[evaluations, episodes]``, has an alert."""
    history = ReturnHistory()
    for episodes in evaluations:
        returns = read_returns(float(episodes.mean()), float(episodes.std()), len(episodes))
        if returns is not None and history.add(returns) and history.fall(limit=LIMIT) is not None:
            return True
    return False


def rate(parts: Sequence[tuple[Draw, int]], episodes: int, runs: int) -> float:
    """Returns the percentage of trainings with an alert; each part is a distribution and a number of evaluations."""
    rng = np.random.default_rng(0)
    trainings = (np.concatenate([draw(rng, (count, episodes)) for draw, count in parts]) for _ in range(runs))
    return 100 * float(np.mean([alerts(training) for training in trainings]))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.return_falls", description=__doc__)
    parser.add_argument("--runs", type=int, default=400, help="trainings of each cell")
    parser.add_argument("--evaluations", type=int, default=BEFORE + AFTER, help="of each training without a fall")
    arguments = parser.parse_args()
    runs = arguments.runs
    unchanged = {name: [(draw, arguments.evaluations)] for name, draw in UNCHANGED.items()}
    falls = {name: [(before, BEFORE), (after, AFTER)] for name, (before, after) in FALLS.items()}
    for title, cases in (("agent, false alarms (%)", unchanged), ("fall, found (%)", falls)):
        print(f"| {title} | {' | '.join(f'{count} episodes' for count in EPISODES)} |")
        print(f"|---|{'---|' * len(EPISODES)}")
        for name, parts in cases.items():
            cells = [f"{rate(parts, count, runs):.1f}" for count in EPISODES]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
