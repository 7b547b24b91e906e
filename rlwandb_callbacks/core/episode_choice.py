"""Which episodes are worth a video."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode

RANKS = ("best", "median", "worst")
GROUPS = {"failures": "failure", "successes": "success", "random": "random"}
LENGTHS = ("longest", "shortest")
CHOICES = (*RANKS, *GROUPS, *LENGTHS)
DEFAULT_AT_MOST = 3
NOT_IN_NAMES = re.compile(r"[^\w.-]+")

Chooser: TypeAlias = Callable[[Sequence[Episode]], Any]


def choose(
    episodes: Sequence[Episode],
    select: Sequence[str | Chooser] = RANKS,
    *,
    seed: int = 0,
    at_most: int = DEFAULT_AT_MOST,
) -> dict[str, int]:
    """Picks episodes by name.

    ``best``, ``median`` and ``worst`` are those of :func:`extremes`; ``longest`` and ``shortest`` go by steps, the
    first of equals. ``failures`` (the lowest return first, as ``failure_1``, ``failure_2``, …) and ``successes`` (the
    highest return first) go by what the environment says of the outcome. Where it says nothing of any episode, failures
    are the episodes whose return lies below the median and successes those above it. ``random`` draws with the same
    ``seed`` each time, so that videos of the same start can be compared over a training. One episode may be picked
    under several names.

    Args:
        episodes: At least one.
        select: Names of ``CHOICES``, or functions that take the episodes and return indices into them
            (``chosen_1``, …), or a mapping from a name to an index.
        seed: Of ``random``.
        at_most: Episodes for each of ``failures``, ``successes``, ``random`` and each function's list of indices.

    Returns:
        Index into ``episodes`` by name, in the order of ``select``.

    Raises:
        ValueError: If there is no episode, or a function returns what are no indices.

    Example:
        >>> def lasting(steps):
        ...     return Episode(actions=np.zeros(steps), rewards=np.ones(steps), terminated=True)
        >>> choose([lasting(2), lasting(5), lasting(3)], ["best", "failures", "shortest"])
        {'best': 1, 'failure_1': 0, 'shortest': 0}
    """
    returns = [episode.total_return for episode in episodes]
    ranked = extremes(returns)
    picked: dict[str, int] = {}
    for choice in select:
        if not isinstance(choice, str):
            picked |= _chosen(choice, episodes, at_most)
        elif choice in RANKS:
            picked |= {choice: ranked[choice]} if choice in ranked else {}
        elif choice in LENGTHS:
            lengths = np.array([episode.length for episode in episodes])
            picked[choice] = int(lengths.argmax() if choice == "longest" else lengths.argmin())
        else:
            picked |= _numbered(GROUPS[choice], _group(choice, episodes, seed)[:at_most])
    return picked


def _group(choice: str, episodes: Sequence[Episode], seed: int) -> list[int]:
    if choice == "random":
        return [int(index) for index in np.random.default_rng(seed).permutation(len(episodes))]
    wants_success = choice == "successes"
    upwards = _upwards([episode.total_return for episode in episodes])
    outcomes = [episode.success for episode in episodes]
    if all(outcome is None for outcome in outcomes):
        outcomes = _by_median([episode.total_return for episode in episodes])
    found = [int(index) for index in upwards if outcomes[index] is wants_success]
    return found[::-1] if wants_success else found


def _by_median(returns: Sequence[float]) -> list[bool | None]:
    comparable = np.nan_to_num(np.asarray(returns, dtype=np.float64), nan=-np.inf)
    ordered = np.sort(comparable)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return [False if value < high else True if value > low else None for value in comparable]


def _numbered(name: str, indices: Iterable[int]) -> dict[str, int]:
    return {f"{name}_{number}": index for number, index in enumerate(indices, start=1)}


def _chosen(function: Chooser, episodes: Sequence[Episode], at_most: int) -> dict[str, int]:
    answer = function(episodes)
    try:
        found = (
            {NOT_IN_NAMES.sub("_", str(name)): int(index) for name, index in answer.items()}
            if isinstance(answer, Mapping)
            else _numbered("chosen", [int(index) for index in answer][:at_most])
        )
    except (OverflowError, TypeError, ValueError):
        found = {"": -1}
    if any(not 0 <= index < len(episodes) for index in found.values()):
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"videos.select: {name} returned {answer!r}; it must return indices from 0 to {len(episodes) - 1}, or a "
            "mapping from a name to such an index."
        )
    return found


def extremes(returns: Sequence[float]) -> dict[str, int]:
    """Picks the best, median and worst episode, each another one.

    With one episode only the best is named, with two the best and the worst. For an even number the lower median is
    taken, as the median has to be an episode that was played. A return that is NaN counts as worse than any number;
    equal returns keep their order.

    Args:
        returns: One undiscounted return per episode, at least one.

    Returns:
        Index into ``returns`` by rank name, in the order best, median, worst.

    Raises:
        ValueError: If there is no episode.

    Example:
        >>> extremes([10.0, 30.0, 20.0, 40.0])
        {'best': 3, 'median': 2, 'worst': 0}
    """
    if len(returns) == 0:
        raise ValueError("There is no episode to choose from: returns is empty.")
    order = _upwards(returns)
    picked = {"best": int(order[-1])}
    if len(order) >= 3:
        picked["median"] = int(order[(len(order) - 1) // 2])
    if len(order) >= 2:
        picked["worst"] = int(order[0])
    return picked


def _upwards(returns: Sequence[float]) -> NDArray[np.intp]:
    comparable = np.asarray(returns, dtype=np.float64)
    is_number = ~np.isnan(comparable)
    return np.lexsort((np.where(is_number, comparable, 0.0), is_number))
