"""What each rank has played of an evaluation, and what is missing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rlwandb_callbacks.callbacks.ranks import on_rank
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.errors import EnvError, RenderError, describe_error

Problem: TypeAlias = tuple[str, Exception]
"""Work that failed, as the subject of a warning, and its exception."""


@dataclass(frozen=True)
class RankResult:
    """Episodes of one rank, and an error of those that are missing.

    Args:
        episodes: Episodes that were played.
        error: Error of the missing ones.
        seeds: Seed that was given to each episode, also if its environment ignores it.
        missing: Seeds of the missing episodes.
        is_interrupted: Whether episodes are missing as the training is being interrupted.
    """

    episodes: Sequence[Episode] = ()
    error: Exception | None = None
    seeds: Sequence[int] = ()
    missing: Sequence[int] = ()
    is_interrupted: bool = False

    def with_more(self, other: RankResult) -> RankResult:
        """Adds episodes that this rank has played for another one."""
        return RankResult(
            episodes=[*self.episodes, *other.episodes],
            error=self.error or other.error,
            seeds=[*self.seeds, *other.seeds],
            missing=[*self.missing, *other.missing],
            is_interrupted=self.is_interrupted or other.is_interrupted,
        )

    def problem(self, index: int, left_out: Collection[int], num_ranks: int) -> Problem | None:
        """Returns the error of this rank, with what became of its episodes.

        Args:
            index: Index of this rank.
            left_out: Seeds of the episodes that no rank has played.
            num_ranks: Number of ranks.
        """
        if self.error is None:
            return None
        error = self.error if num_ranks == 1 else on_rank(index, self.error)
        lost = [seed for seed in self.missing if seed in left_out]
        played_elsewhere = len(self.missing) - len(lost)
        if not self.missing or (num_ranks == 1 and not self.episodes):
            return "The evaluation", error
        parts = [f"{_episodes(played_elsewhere)} played by other ranks instead"] if played_elsewhere else []
        parts += [f"{_episodes(len(lost))} left out"] if lost else []
        of_seeds = (
            f" (seed{'s' * (len(self.missing) > 1)} {', '.join(map(str, self.missing))})" if num_ranks > 1 else ""
        )
        named = RuntimeError(f"{' and '.join(parts)}{of_seeds}: {describe_error(error)}")
        named.__cause__ = self.error
        return "Part of the evaluation", named


def is_of_env(result: RankResult) -> bool:
    """Returns whether a rank has no episode because of its environment or its pictures."""
    return not result.episodes and isinstance(result.error, EnvError | RenderError)


def given_seeds(asked: Sequence[int], played: Sequence[int | None]) -> tuple[list[int], list[int]]:
    """Returns the seed that was given to each episode that was played, and the seeds of those that are missing.

    Episodes are in the order of ``asked``. Those of environments that ignore seeds have none, and count as the first
    ones.

    Example:
        >>> given_seeds([0, 2, 4], [0, 4]), given_seeds([1, 3], [None])
        (([0, 4], [2]), ([1], [3]))
    """
    given = [asked[place] if seed is None else seed for place, seed in enumerate(played)]
    return given, [seed for seed in asked if seed not in given]


def _episodes(count: int) -> str:
    return f"{count} episode{'s are' if count > 1 else ' is'}"


def rank_positions(results: Sequence[RankResult]) -> list[tuple[int, int]]:
    """Returns rank and position within the rank of each episode, in the order of their seeds.

    Example:
        >>> import numpy as np
        >>> episode = Episode(actions=np.zeros(1), rewards=np.zeros(1), terminated=True)
        >>> rank_positions([RankResult([episode] * 3, seeds=[0, 3, 1]), RankResult([episode], seeds=[2])])
        [(0, 0), (0, 2), (1, 0), (0, 1)]
    """
    places = [
        (seed, rank, position) for rank, result in enumerate(results) for position, seed in enumerate(result.seeds)
    ]
    return [(rank, position) for _, rank, position in sorted(places)]


def in_seed_order(results: Sequence[RankResult]) -> list[Episode]:
    """Returns the episodes of all ranks in the order of their seeds."""
    return [results[rank].episodes[position] for rank, position in rank_positions(results)]
