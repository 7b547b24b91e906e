"""Training episodes that ended, as modules and Gymnasium tell of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RETURN_NAMES = frozenset(
    {"episode_return", "episodic_return", "episode_returns", "episode_reward", "ep_rew", "ep_return"}
)
LENGTH_NAMES = frozenset({"episode_length", "episodic_length", "episode_lengths", "ep_len", "ep_length"})
SUCCESS_NAMES = ("is_success", "success", "episode_success")
INFO_NAMES = frozenset({"info", "infos"})
STATISTICS = "episode"  # gymnasium.wrappers.RecordEpisodeStatistics
FINAL_INFO = "final_info"
NOTHING: Floats = np.zeros(0)


@dataclass
class EndedEpisodes:
    """What is known of some episodes that ended.

    Args:
        returns: Undiscounted returns, one for each episode.
        lengths: In environment steps; may be known of fewer.
        successes: 1.0 or 0.0; may be known of fewer.
    """

    returns: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)

    def add(self, other: EndedEpisodes) -> None:
        """Takes further episodes in."""
        self.returns += other.returns
        self.lengths += other.lengths
        self.successes += other.successes

    def numbers(self) -> dict[str, float]:
        """Their means by key; nothing where no episode ended.

        Example:
            >>> EndedEpisodes(returns=[1.0, 3.0], successes=[1.0, 0.0]).numbers()
            {'rollout/return_mean': 2.0, 'rollout/success_rate': 0.5, 'rollout/episodes': 2.0}
        """
        if not self.returns:
            return {}
        known = {"return_mean": self.returns, "length_mean": self.lengths, "success_rate": self.successes}
        means = {f"rollout/{name}": float(np.mean(values)) for name, values in known.items() if values}
        return {**means, "rollout/episodes": float(len(self.returns))}


def relevant(value: Any, name: str) -> Any:
    """Reduces what stands under one of the known names to what tells of ended episodes; None if that is nothing.

    Infos may hold pictures and more, which must not be kept.

    Args:
        value: As a module returned it.
        name: Normalised name it was returned under.

    Example:
        >>> relevant({"lives": 3}, "info"), relevant({"lives": 0, "episode": {"r": 1.0}}, "info")
        (None, {'episode': {'r': 1.0}})
    """
    if name not in INFO_NAMES and name != FINAL_INFO:
        return value
    if isinstance(value, Mapping):
        return _relevant_of_info(value)
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        infos = [_relevant_of_info(info) for info in value if isinstance(info, Mapping)]
        return [info for info in infos if info] or None
    return None


def _relevant_of_info(info: Mapping[str, Any]) -> dict[str, Any] | None:
    final = relevant(info[FINAL_INFO], FINAL_INFO) if FINAL_INFO in info else None
    if STATISTICS not in info:
        return None if final is None else {FINAL_INFO: final}
    names = (STATISTICS, *SUCCESS_NAMES)
    return {name: info[name] for name in (*names, *(f"_{name}" for name in names)) if name in info}


def ended_in_info(info: Any) -> EndedEpisodes:
    """Reads Gymnasium's infos: of one environment, of a vector of them, or a list with one for each.

    Args:
        info: Holds ``episode = {"r": return, "l": length}``, as ``RecordEpisodeStatistics`` puts it there, with numbers
            or, of a vector, with arrays and the mask ``_episode``; or ``final_info`` that holds the same.

    Example:
        >>> statistics = {"r": np.array([0.0, 7.0]), "l": np.array([0, 3])}
        >>> ended_in_info({"episode": statistics, "_episode": np.array([False, True])})
        EndedEpisodes(returns=[7.0], lengths=[3.0], successes=[])
    """
    ended = EndedEpisodes()
    for one in _infos(info):
        statistics = one[STATISTICS]
        success_name = next((name for name in SUCCESS_NAMES if name in one), "")
        ended.add(
            ended_episodes(
                statistics["r"],
                statistics.get("l"),
                one.get(success_name),
                mask=one.get(f"_{STATISTICS}"),
                success_mask=one.get(f"_{success_name}"),
            )
        )
    return ended


def _infos(info: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(info, Mapping):
        statistics = info.get(STATISTICS)
        if isinstance(statistics, Mapping) and "r" in statistics:
            yield info
        elif FINAL_INFO in info:
            yield from _infos(info[FINAL_INFO])
    elif isinstance(info, list | tuple):
        for one in info:
            yield from _infos(one)


def ended_episodes(
    returns: Any, lengths: Any = None, successes: Any = None, *, mask: Any = None, success_mask: Any = None
) -> EndedEpisodes:
    """Reads numbers or arrays with an entry for each environment, of which not all need have ended.

    Args:
        returns: NaN or None for no episode that ended.
        lengths: In environment steps; 0 for no episode that ended.
        successes: True or False.
        mask: True where an episode ended; without it, what is NaN or has no length did not.
        success_mask: True where ``successes`` says anything.

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
    told = ended if success_mask is None else ended & _fitting(numbers_in(success_mask) > 0, ended)
    return EndedEpisodes(
        all_returns[ended].tolist(), _where(all_lengths, ended), [float(s != 0) for s in _where(all_successes, told)]
    )


def _fitting(mask: NDArray[np.bool_], like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask if mask.size == like.size else np.ones_like(like)


def _where(values: Floats, mask: NDArray[np.bool_]) -> list[float]:
    if values.size != mask.size:
        return []
    chosen: list[float] = values[mask & ~np.isnan(values)].tolist()
    return chosen


def numbers_in(value: Any) -> Floats:
    """A flat array of whatever holds numbers; empty for None and for what holds none.

    Example:
        >>> numbers_in([1, [2.5]]), numbers_in(None), numbers_in("none")
        (array([1. , 2.5]), array([], dtype=float64), array([], dtype=float64))
    """
    if value is None:
        return NOTHING
    try:
        return np.asarray(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        parts = value if isinstance(value, list | tuple) else ()
        return np.concatenate([NOTHING, *(numbers_in(part) for part in parts)])
