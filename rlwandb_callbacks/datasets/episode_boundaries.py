"""Splits a stream of steps into episodes, in memory that does not grow with the number of steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.core.transitions import EpisodeSummaries

LONGEST_PLAUSIBLE = 27_000  # steps of 30 minutes of Atari, the longest time limit in common use
LONGEST_WITHOUT_TIMEOUTS = 5_000  # five times the most common limit, if limits are not marked
_MAX_NAMED = 10
_MIN_LONGER_STEPS = 5  # shorter episodes may alternate with those of one step by chance


@dataclass(frozen=True, kw_only=True)
class StepBlock:
    """A block of consecutive steps.

    Args:
        rewards: Shape ``[B]``, in the environment's unit.
        terminated: Shape ``[B]``: whether the step led to a terminal state.
        truncated: Shape ``[B]``: whether the episode was cut off there, as by a time limit.
        last: Shape ``[B]``: whether the step is the last of its episode.
    """

    rewards: Floats
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    last: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class EpisodeBoundaries:
    """Where the episodes of a data set begin and end.

    Args:
        summaries: Returns, lengths and ends of the E episodes.
        starts: Shape ``[E]``: row of the first step of each episode.
        marks_inside: Number of steps that are marked as an end although their episode goes on.
    """

    summaries: EpisodeSummaries
    starts: NDArray[np.int64]
    marks_inside: int = 0


# Arrays (returns, lengths, terminated, truncated) of consecutive episodes.
_Finished: TypeAlias = tuple[Floats, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]


class _EpisodeCollector:
    """Collects finished episodes, and keeps the one that goes on in the next block open."""

    def __init__(self) -> None:
        none = np.zeros(0, dtype=bool)
        self.finished: list[_Finished] = [(np.zeros(0), np.zeros(0, dtype=np.int64), none, none)]
        self.marks_inside = 0
        self._open_return = 0.0
        self._open_length = 0

    def add(self, block: StepBlock) -> None:
        count = len(block.rewards)
        if not count:
            return
        ends = np.flatnonzero(block.last)
        edges = np.concatenate(([0], ends + 1, [count] if not block.last[-1] else [])).astype(np.int64)
        returns = np.add.reduceat(block.rewards, edges[:-1])
        lengths = np.diff(edges)
        returns[0] += self._open_return
        lengths[0] += self._open_length
        finished = len(ends)
        self.finished.append((returns[:finished], lengths[:finished], block.terminated[ends], block.truncated[ends]))
        self.marks_inside += int(np.count_nonzero((block.terminated | block.truncated) & ~block.last))
        still_open = finished < len(lengths)
        self._open_return = float(returns[-1]) if still_open else 0.0
        self._open_length = int(lengths[-1]) if still_open else 0

    def close(self) -> None:
        if self._open_length:
            neither = np.zeros(1, dtype=bool)
            self.finished.append((np.array([self._open_return]), np.array([self._open_length]), neither, neither))


def find_episodes(blocks: Iterable[StepBlock]) -> EpisodeBoundaries:
    """Splits steps into episodes; the last one may lack its end.

    Args:
        blocks: All steps in order, in blocks of any size.

    Example:
        >>> no = np.zeros(3, dtype=bool)
        >>> end = np.array([False, True, False])
        >>> block = StepBlock(rewards=np.array([1.0, 2.0, 4.0]), terminated=end, truncated=no, last=end)
        >>> found = find_episodes([block, block])
        >>> found.summaries.returns, found.summaries.lengths, found.starts
        (array([3., 7., 4.]), array([2, 3, 1]), array([0, 2, 5]))
    """
    found = _EpisodeCollector()
    for block in blocks:
        found.add(block)
    found.close()
    returns, lengths, terminated, truncated = map(np.concatenate, zip(*found.finished, strict=True))
    summaries = EpisodeSummaries(returns=returns, lengths=lengths, terminated=terminated, truncated=truncated)
    return EpisodeBoundaries(summaries=summaries, starts=np.cumsum(lengths) - lengths, marks_inside=found.marks_inside)


def boundary_warnings(
    found: EpisodeBoundaries, *, marks_timeouts: bool, marks_every_end: bool = False
) -> tuple[str, ...]:
    """Returns the problems with the ends of episodes, one sentence each.

    Args:
        found: The episodes.
        marks_timeouts: Whether the layout distinguishes time limits from terminal states.
        marks_every_end: Whether the layout tells where each episode ends, whatever ends it, as groups and ids do. Then
            no length is too long, and an episode without a mark is a whole one.
    """
    lengths = found.summaries.lengths
    ended = found.summaries.terminated | found.summaries.truncated
    may_lack_ends = not (marks_every_end or (marks_timeouts and found.summaries.truncated.any()))
    checks = (
        "" if marks_every_end else _no_end(lengths, ended),
        _too_long(lengths, marks_timeouts=marks_timeouts) if may_lack_ends else "",
        _all_one_step(lengths),
        _row_of_last_observation(lengths, ended),
        _time_limit_as_terminal(found.summaries, marks_timeouts=marks_timeouts),
        _marks_inside(found.marks_inside),
        _not_finite(found.summaries.returns),
    )
    return tuple(check for check in checks if check)


def _no_end(lengths: NDArray[np.int64], ended: NDArray[np.bool_]) -> str:
    if len(lengths) != 1 or ended.any():
        return ""
    count = int(lengths[0])
    counted = f"all {count:,} steps count" if count > 1 else "the only step counts"
    return (
        f"No step is marked as the end of an episode: {counted} as one episode, and its return and length mean little."
    )


def _too_long(lengths: NDArray[np.int64], *, marks_timeouts: bool) -> str:
    longest = int(np.argmax(lengths))
    limit = LONGEST_PLAUSIBLE if marks_timeouts else max(LONGEST_WITHOUT_TIMEOUTS, 10 * float(np.median(lengths)))
    if lengths[longest] <= min(limit, LONGEST_PLAUSIBLE):
        return ""
    what = f"Episode {longest} has {lengths[longest]:,} steps"
    if marks_timeouts:
        return (
            f"{what}, and no step is marked as cut off by a time limit. If such marks are missing, episodes run "
            "together: returns, lengths and times within episodes are wrong then."
        )
    return (
        f"{what}, which is a bug in the file rather than an episode: it marks no time limits, so that episodes run "
        "together. Returns, lengths and times within episodes are wrong there. If the episode is that long, save "
        "episode_ids beside it, the number of each row's episode."
    )


def _row_of_last_observation(lengths: NDArray[np.int64], ended: NDArray[np.bool_]) -> str:
    """Returns a warning where an episode of one step follows each longer one: the row of its last observation.

    It is marked as an end. One that is not may be the first step of an episode that a buffer has not in full.
    """
    longer, single = lengths[::2], lengths[1::2]
    if len(lengths) < 4 or len(lengths) % 2 or (single != 1).any() or longer.min() < _MIN_LONGER_STEPS:
        return ""
    if not ended[1::2].all():
        return ""
    return (
        "Each episode is followed by one of a single step: probably the row of its last observation, which holds no "
        "step. Leave these rows out, or save valids beside them: 0 for these rows, else 1."
    )


def _all_one_step(lengths: NDArray[np.int64]) -> str:
    if len(lengths) < 2 or lengths.max() > 2 or np.median(lengths) > 1:
        return ""
    every = "Every" if lengths.max() == 1 else "Nearly every"
    return (
        f"{every} step is marked as the end of its episode; the marks are probably inverted or constant, or the rows "
        "of several episodes alternate."
    )


def _time_limit_as_terminal(episodes: EpisodeSummaries, *, marks_timeouts: bool) -> str:
    lengths = episodes.lengths
    if marks_timeouts or len(lengths) < 2 or lengths[0] < 2 or (lengths != lengths[0]).any():
        return ""
    if not episodes.terminated.all():
        return ""
    return (
        f"All {len(lengths):,} episodes are marked as done after exactly {lengths[0]:,} steps: probably a time "
        "limit, which this layout cannot tell from a terminal state. They are counted as terminal."
    )


def _not_finite(returns: Floats) -> str:
    """Returns how many episodes have NaN or infinite rewards; statistics of returns leave them out."""
    rows = np.flatnonzero(~np.isfinite(returns))
    if not len(rows):
        return ""
    count, which = len(rows), ", ".join(map(str, rows[:_MAX_NAMED].tolist())) + ", …" * (len(rows) > _MAX_NAMED)
    have, are = ("have", "are") if count > 1 else ("has", "is")
    return (
        f"{count:,} of {len(returns):,} episodes {have} rewards that are NaN or infinite, and {are} left out of all "
        f"statistics of returns: {which}."
    )


def _marks_inside(count: int) -> str:
    if not count:
        return ""
    marked = f"{count:,} steps are" if count > 1 else "1 step is"
    their = "their" if count > 1 else "its"
    return f"{marked} marked as the end of an episode although {their} episode goes on in the file."
