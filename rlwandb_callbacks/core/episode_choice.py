"""Selection of the episodes that become videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.key_names import valid_name

LABELS = ("best", "median", "worst")
GROUPS = {"failures": "failure", "successes": "success", "random": "random"}
LENGTHS = ("longest", "shortest")
CHOICES = (*LABELS, *GROUPS, *LENGTHS)
DEFAULT_AT_MOST = 3

Chooser: TypeAlias = Callable[[Sequence[Episode]], Any]


def choose(
    episodes: Sequence[Episode],
    select: Sequence[str | Chooser] = LABELS,
    *,
    seed: int = 0,
    at_most: int = DEFAULT_AT_MOST,
) -> dict[str, int]:
    """Selects episodes.

    ``best``, ``median`` and ``worst`` are those of :func:`best_median_worst`. ``longest`` and ``shortest`` compare the
    numbers of steps; the first of equal ones is taken. ``failures`` (lowest return first, labeled ``failure_1``,
    ``failure_2``, …) and ``successes`` (highest return first) are what the environment reports. If it reports nothing
    for any episode, failures are the episodes with a return below the median, and successes those above it. ``random``
    uses the same ``seed`` each time, so that videos of the same initial state can be compared over a training. An
    episode may be selected under several labels.

    Args:
        episodes: At least one episode.
        select: Names in ``CHOICES``, or functions that take the episodes and return indices into them
            (labeled ``chosen_1``, …), or a mapping from labels to indices.
        seed: Seed of ``random``.
        at_most: Largest number of episodes for each of ``failures``, ``successes``, ``random`` and each function that
            returns a list of indices.

    Returns:
        Index into ``episodes`` by label, in the order of ``select``.

    Example:
        >>> def play(steps):
        ...     return Episode(actions=np.zeros(steps), rewards=np.ones(steps), terminated=True)
        >>> choose([play(2), play(5), play(3)], ["best", "failures", "shortest"])
        {'best': 1, 'failure_1': 0, 'shortest': 0}
    """
    by_return = best_median_worst([episode.total_return for episode in episodes])
    selected: dict[str, int] = {}
    for choice in select:
        if not isinstance(choice, str):
            selected |= _from_function(choice, episodes, at_most)
        elif choice in LABELS:
            selected |= {choice: by_return[choice]} if choice in by_return else {}
        elif choice in LENGTHS:
            lengths = np.array([episode.length for episode in episodes])
            selected[choice] = int(lengths.argmax() if choice == "longest" else lengths.argmin())
        else:
            selected |= _numbered(GROUPS[choice], _group(choice, episodes, seed)[:at_most])
    return selected


def _group(choice: str, episodes: Sequence[Episode], seed: int) -> list[int]:
    if choice == "random":
        return [int(index) for index in np.random.default_rng(seed).permutation(len(episodes))]
    returns = [episode.total_return for episode in episodes]
    outcomes = [episode.success for episode in episodes]
    if all(outcome is None for outcome in outcomes):
        outcomes = _successes_by_median(returns)
    is_success = choice == "successes"
    indices = [int(index) for index in _ascending(returns) if outcomes[index] is is_success]
    return indices[::-1] if is_success else indices


def _successes_by_median(returns: Sequence[float]) -> list[bool | None]:
    comparable = np.nan_to_num(np.asarray(returns, dtype=np.float64), nan=-np.inf)
    ordered = np.sort(comparable)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return [False if value < high else True if value > low else None for value in comparable]


def _numbered(label: str, indices: Iterable[int]) -> dict[str, int]:
    return {f"{label}_{number}": index for number, index in enumerate(indices, start=1)}


def _from_function(function: Chooser, episodes: Sequence[Episode], at_most: int) -> dict[str, int]:
    result = function(episodes)
    try:
        selected = (
            {valid_name(str(label)): int(index) for label, index in result.items()}
            if isinstance(result, Mapping)
            else _numbered("chosen", [int(index) for index in result][:at_most])
        )
    except (OverflowError, TypeError, ValueError):
        selected = {"": -1}
    if any(not 0 <= index < len(episodes) for index in selected.values()):
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"videos.select: {name} returned {result!r}; it must return indices from 0 to {len(episodes) - 1}, or a "
            "mapping from labels to such indices."
        )
    return selected


def best_median_worst(returns: Sequence[float]) -> dict[str, int]:
    """Returns the index of the best, the median and the worst of at least one undiscounted return, by label.

    The three are different ones: of one return only the best is selected, of two the best and the worst. The median of
    an even number is the lower one, because it must be the return of an episode. NaN is worse than any number; equal
    returns keep their order.

    Example:
        >>> best_median_worst([10.0, 30.0, 20.0, 40.0])
        {'best': 3, 'median': 2, 'worst': 0}
    """
    if len(returns) == 0:
        raise ValueError("There is no episode to choose from: returns is empty.")
    order = _ascending(returns)
    selected = {"best": int(order[-1])}
    if len(order) >= 3:
        selected["median"] = int(order[(len(order) - 1) // 2])
    if len(order) >= 2:
        selected["worst"] = int(order[0])
    return selected


def _ascending(returns: Sequence[float]) -> NDArray[np.intp]:
    comparable = np.asarray(returns, dtype=np.float64)
    is_number = ~np.isnan(comparable)
    return np.lexsort((np.where(is_number, comparable, 0.0), is_number))
