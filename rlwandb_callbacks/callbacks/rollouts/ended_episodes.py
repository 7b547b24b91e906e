"""Training episodes that ended, read from values of a module and Gymnasium's infos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SUCCESS_NAMES = ("is_success", "success", "episode_success")
STATISTICS = "episode"  # key of gymnasium.wrappers.RecordEpisodeStatistics
FINAL_INFO = "final_info"


MEANS = {"return_mean": "returns", "length_mean": "lengths", "success_rate": "successes"}


@dataclass
class EndedEpisodes:
    """Results of episodes that ended.

    Args:
        returns: Undiscounted return of each episode.
        lengths: Lengths in environment steps; may be known for fewer episodes.
        successes: 1.0 for success, else 0.0; may be known for fewer episodes.
    """

    returns: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)

    def add(self, other: EndedEpisodes) -> None:
        """Adds further episodes."""
        self.returns += other.returns
        self.lengths += other.lengths
        self.successes += other.successes

    def numbers(self) -> dict[str, float]:
        """Returns the means by key; nothing if no episode ended.

        Example:
            >>> EndedEpisodes(returns=[1.0, 3.0], successes=[1.0, 0.0]).numbers()
            {'rollout/return_mean': 2.0, 'rollout/success_rate': 0.5, 'rollout/episodes': 2.0}
        """
        if not self.returns:
            return {}
        return {**self.means(), "rollout/episodes": float(len(self.returns))}

    def means(self) -> dict[str, float]:
        """Returns the means of what is known, by key."""
        known = {name: values for name, field_name in MEANS.items() if (values := getattr(self, field_name))}
        return {f"rollout/{name}": float(np.mean(values)) for name, values in known.items()}

    def keep_latest(self, count: int) -> None:
        """Drops all but the latest ``count`` episodes."""
        for field_name in MEANS.values():
            del getattr(self, field_name)[:-count]


def relevant(info: Any) -> Any:
    """Reduces an info, or a list of infos, to the entries that describe ended episodes; None if it has none.

    Infos may also hold images and other large values, which must not be kept.

    Example:
        >>> relevant({"lives": 3}), relevant({"lives": 0, "episode": {"r": 1.0}})
        (None, {'episode': {'r': 1.0}})
    """
    if isinstance(info, list | tuple) or (isinstance(info, np.ndarray) and info.dtype == object):
        infos = [relevant(each) for each in info if isinstance(each, Mapping)]
        return [each for each in infos if each] or None
    if not isinstance(info, Mapping):
        return None
    if STATISTICS not in info:
        final = relevant(info.get(FINAL_INFO))
        return None if final is None else {FINAL_INFO: final}
    names = (STATISTICS, *SUCCESS_NAMES)
    return {name: info[name] for name in (*names, *(f"_{name}" for name in names)) if name in info}


def ended_in_info(info: Any) -> EndedEpisodes:
    """Reads Gymnasium's info of one environment or of a vector environment, or a list of infos.

    Args:
        info: Mapping with ``episode = {"r": return, "l": length}`` by ``RecordEpisodeStatistics``, which are numbers,
            or for a vector environment arrays, with the mask ``_episode``; or with such a mapping as ``final_info``.

    Example:
        >>> statistics = {"r": np.array([0.0, 7.0]), "l": np.array([0, 3])}
        >>> ended_in_info({"episode": statistics, "_episode": np.array([False, True])})
        EndedEpisodes(returns=[7.0], lengths=[3.0], successes=[])
    """
    ended = EndedEpisodes()
    for each in _infos(info):
        statistics, mask = each[STATISTICS], each.get(f"_{STATISTICS}")
        name = next((name for name in SUCCESS_NAMES if name in each), "")
        success, success_mask = each.get(name), each.get(f"_{name}")
        ended.add(ended_episodes(statistics["r"], statistics.get("l"), success, mask=mask, success_mask=success_mask))
    return ended


def _infos(info: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(info, Mapping):
        statistics = info.get(STATISTICS)
        if isinstance(statistics, Mapping) and "r" in statistics:
            yield info
        elif FINAL_INFO in info:
            yield from _infos(info[FINAL_INFO])
    elif isinstance(info, list | tuple):
        for each in info:
            yield from _infos(each)


def ended_episodes(
    returns: Any, lengths: Any = None, successes: Any = None, *, mask: Any = None, success_mask: Any = None
) -> EndedEpisodes:
    """Reads the episodes that ended from numbers, or from arrays with an element for each environment.

    Args:
        returns: Returns; NaN or None if no episode ended.
        lengths: Lengths in environment steps; 0 if no episode ended.
        successes: Booleans or numbers; 0 is a failure.
        mask: True where an episode ended; by default where the return is not NaN and the length is not 0.
        success_mask: True where ``successes`` is valid; by default everywhere.

    Example:
        >>> ended_episodes([float("nan"), 5.0], [4, 9])
        EndedEpisodes(returns=[5.0], lengths=[9.0], successes=[])
    """
    all_returns, all_lengths, all_successes = numbers_in(returns), numbers_in(lengths), numbers_in(successes)
    ended = ~np.isnan(all_returns)
    if mask is not None:
        ended &= _fitting(numbers_in(mask) > 0, ended)
    elif all_lengths.size == ended.size:
        ended &= all_lengths != 0
    valid = ended if success_mask is None else ended & _fitting(numbers_in(success_mask) > 0, ended)
    successful = [float(number != 0) for number in _where(all_successes, valid)]
    return EndedEpisodes(all_returns[ended].tolist(), _where(all_lengths, ended), successful)


def _fitting(mask: NDArray[np.bool_], like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask if mask.size == like.size else np.ones_like(like)


def _where(values: Floats, mask: NDArray[np.bool_]) -> list[float]:
    chosen: list[float] = values[mask & ~np.isnan(values)].tolist() if values.size == mask.size else []
    return chosen


def numbers_in(value: Any) -> Floats:
    """Returns the numbers in a value as a flat array, which is empty for None and for values without numbers.

    Example:
        >>> numbers_in([1, [2.5]]), numbers_in(None), numbers_in("none")
        (array([1. , 2.5]), array([], dtype=float64), array([], dtype=float64))
    """
    try:
        return np.asarray([] if value is None else value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        parts = value if isinstance(value, list | tuple) else ()
        return np.concatenate([np.zeros(0), *(numbers_in(part) for part in parts)])
