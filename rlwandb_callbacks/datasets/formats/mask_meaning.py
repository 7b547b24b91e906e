"""Decides what ``masks`` mean: 0 where the task ended, or 0 in rows that do not count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Flags


@dataclass(kw_only=True)
class MaskFacts:
    """What was seen of masks beside other marks, block after block.

    Attributes:
        any_within: Whether a mask is 0 although the episode goes on.
        any_ended: Whether another key marks a terminal state.
        any_zero: Whether a mask is 0 in one of these states.
        any_denied: Whether a mask is not 0 in one of these states.
    """

    any_within: bool = False
    any_ended: bool = False
    any_zero: bool = False
    any_denied: bool = False
    _lengths: Counter[int] = field(default_factory=Counter)
    _open_steps: int = 0
    _is_entered: bool = False
    _is_left: bool = False
    _lowest_at_zeros: float = np.inf
    _lowest_elsewhere: float = np.inf
    _highest_elsewhere: float = -np.inf

    def add(self, zeros: Flags, terminated: Flags, last: Flags, rewards: NDArray[np.float64] | None) -> None:
        """Adds a block of B rows.

        Args:
            zeros: Shape ``[B]``: where the mask is 0.
            terminated: Shape ``[B]``: terminal states according to other keys.
            last: Shape ``[B]``: last rows of episodes.
            rewards: Shape ``[B]``; None if they are not known.
        """
        self._count_lengths(last)
        goes_on = ~last[:-1]
        self.any_within |= bool((zeros & ~last).any())
        self.any_ended |= bool(terminated.any())
        self.any_zero |= bool((terminated & zeros).any())
        self.any_denied |= bool((terminated & ~zeros).any())
        self._is_entered |= bool((goes_on & ~zeros[:-1] & zeros[1:]).any())
        self._is_left |= bool((goes_on & zeros[:-1] & ~zeros[1:]).any())
        if rewards is not None:
            self._lowest_at_zeros = min(self._lowest_at_zeros, float(rewards[zeros].min(initial=np.inf)))
            self._lowest_elsewhere = min(self._lowest_elsewhere, float(rewards[~zeros].min(initial=np.inf)))
            self._highest_elsewhere = max(self._highest_elsewhere, float(rewards[~zeros].max(initial=-np.inf)))

    def _count_lengths(self, last: Flags) -> None:
        ends = np.flatnonzero(last) + 1
        lengths = np.diff(ends, prepend=-self._open_steps)
        self._lengths.update(lengths.tolist())
        self._open_steps = len(last) - int(ends[-1]) if len(ends) else self._open_steps + len(last)

    @property
    def never_succeed(self) -> bool:
        """Whether no end looks terminal: half of the episodes have one length, or each step has the same penalty."""
        has_limit = bool(self._lengths) and 2 * max(self._lengths.values()) >= self._lengths.total()
        return has_limit or self._lowest_elsewhere == self._highest_elsewhere < 0

    @property
    def follow_success(self) -> bool:
        """Whether masks are 0 exactly where the reward is highest, as the rewards and masks of OGBench's tasks are.

        Rows that fill up episodes cannot look so: they lie at the beginning or the end of episodes only.
        """
        return self._is_entered and self._is_left and self._lowest_at_zeros > self._highest_elsewhere


def masks_are_no_ends(facts: MaskFacts, read: set[str], *, are_transitions: bool) -> bool:
    """Returns whether masks tell nothing about terminal states.

    They are 0 within episodes, as for padding; 1 at all ends that are marked as terminal, as for rows that count; or
    they disagree with terminals beside which time limits are marked. The first two do not speak against masks of data
    that tell otherwise which rows count; and the second does not where the rows are transitions, so that all count,
    unless the marks are called terminal, and lengths of episodes and rewards differ as in tasks that end.

    Args:
        facts: What was seen.
        read: Fields that are read.
        are_transitions: Whether the rows have next observations, so that each is a transition.
    """
    has_terminals = bool({"terminals", "dones", "continues"} & read)
    if has_terminals and facts.any_denied and "timeouts" in read:
        return True
    if has_terminals and ("valids" in read or facts.follow_success):
        return False
    if facts.any_within:
        return True
    if not has_terminals or not facts.any_ended or facts.any_zero:
        return False
    may_mark_any_end = not {"terminals", "continues"} & read or facts.never_succeed
    return not (are_transitions and may_mark_any_end)


def are_ends_of_trajectories(ends: Flags, invalid: Flags) -> bool:
    """Returns whether marks of terminal states are those of OGBench's compact form, which mark ends of any kind.

    There the row of the last observation is not valid, and is marked as well as the last step, the row before it.

    Args:
        ends: Shape ``[N]``: the marks.
        invalid: Shape ``[N]``: rows that hold no transition.
    """
    return bool(invalid.any()) and bool((ends == (invalid | np.append(invalid[1:], False))).all())
