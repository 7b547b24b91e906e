"""Marks of flat data sets: which row ends an episode, and whether in a terminal state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.datasets.columns import Column, Flags, is_numeric
from rlwandb_callbacks.datasets.formats.mark_conflicts import OPTIONAL, contradicts, counts_steps, ids_contradict
from rlwandb_callbacks.datasets.formats.mark_values import is_first_type, is_last_type, is_no_one, is_one, is_zero
from rlwandb_callbacks.datasets.formats.mask_meaning import MaskFacts, are_ends_of_trajectories, masks_are_no_ends
from rlwandb_callbacks.datasets.unwritten_rows import runs
from rlwandb_callbacks.errors import DatasetError

Test: TypeAlias = Callable[[NDArray[np.generic]], Flags]

STRICT = ("terminals", "timeouts", "dones")  # these under a usual name must be marks; others are left out if not
_USUAL = frozenset(
    (
        "terminals", "terminal", "terminations", "terminated", "timeouts", "timeout", "truncations", "truncated",
        "dones", "done",
    )
)  # fmt: skip
BLOCK_ROWS = 2**18
_OF_EPISODES = ("ends", "starts", "start_rows", "lengths")  # may hold one number per episode
_ONLY_OF_EPISODES = ("start_rows", "lengths")
_DEPENDENT = {"masks", "discounts"}  # tell something only about ends that other keys mark
_MARKING_EVERY_END = {"ids", "step_types", "steps", *_OF_EPISODES}
_MARKING_TIME_LIMITS = {"timeouts", "ids", "step_types", *_OF_EPISODES}
_END_TESTS: Mapping[str, Test] = {"continues": is_no_one, "step_types": is_last_type}  # of others: is_one


@dataclass(frozen=True, kw_only=True)
class MarkBlock:
    """Marks of B consecutive rows, each of shape ``[B]``.

    Args:
        terminated: Whether the step led to a terminal state.
        truncated: Whether the episode was cut off there.
        last: Whether the step is the last of its episode.
    """

    terminated: Flags
    truncated: Flags
    last: Flags


class EpisodeMarks:
    """Reads the marks of a flat data set of N rows.

    Marks with one number per row are read block by block; those with one number per episode (lengths, or rows where
    episodes start or end) at once.

    Args:
        columns: Columns by field, except observations, actions and rewards.
        names: Key of each field, for messages.
        count: Number of rows, N.
        source: Name of the data set in messages.
        rewards: Column of shape ``[N]`` or ``[N, 1]``; by default masks are understood without it.
        are_transitions: Whether the rows have next observations.

    Attributes:
        by_row: Columns of shape ``[N]`` or ``[N, 1]`` by field. Fields are left out if they are neither one number per
            row nor one per episode, their values are no marks, or they contradict more usual marks.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        names: Mapping[str, str],
        count: int,
        source: str,
        *,
        rewards: Column | None = None,
        are_transitions: bool = False,
    ) -> None:
        self._names, self._count, self._source = names, count, source
        self._rewards, self._are_transitions = rewards, are_transitions
        self._mark_any_end = False
        self.by_row = {field: column for field, column in columns.items() if _is_by_row(field, column, count)}
        self._by_episode = {
            field: ends
            for field, column in columns.items()
            if field not in self.by_row and (ends := self._read_by_episode(field, column)) is not None
        }
        self._leave_out_conflicts()
        self._drop_dependent()

    @property
    def read(self) -> set[str]:
        """Fields that are read, rather than left out."""
        return {*self.by_row, *self._by_episode}

    def _leave_out(self, field: str) -> None:
        self.by_row.pop(field, None)
        self._by_episode.pop(field, None)

    def _leave_out_conflicts(self) -> None:
        """Leaves out marks whose values are no marks or that contradict more usual ones."""
        strict = strict_fields({field: self._names[field] for field in self.read})
        first = [field for field in STRICT if field in self.read and (field != "dones" or "terminals" not in strict)]
        optional = [field for field in OPTIONAL if field in self.read and field not in first]
        known: Flags = np.zeros(self._count, dtype=bool)
        for field in (*first, *optional):
            if field in strict and not optional:
                continue  # read later: nothing is compared with it
            ends = self.ends_of(field) if field in (*strict, "ids") else self._valid_ends_of(field)
            if ends is None or (field in optional and self._contradicts(field, ends, known)):
                self._leave_out(field)
            else:
                known |= ends

    def _contradicts(self, field: str, ends: Flags, known: Flags) -> bool:
        if field == "ids":
            return ids_contradict(ends, known, lambda: len(np.unique(self._values("ids"))))
        is_by_row, is_complete = field in self.by_row, "timeouts" in self.read
        return contradicts(self._names[field], ends, known, is_by_row=is_by_row, is_complete=is_complete)

    def _values(self, field: str) -> NDArray[np.generic]:
        return np.concatenate([self.by_row[field].span(*rows).reshape(-1) for rows in self.blocks()])

    def _valid_ends_of(self, field: str) -> Flags | None:
        """Returns the same as ``ends_of``; None if the values of the mark cannot be what its name says."""
        if field == "steps" and not counts_steps(self._values(field)):
            return None
        try:
            return self.ends_of(field)
        except DatasetError:
            return None

    def ends_of(self, *fields: str) -> Flags:
        """Returns the last rows of episodes according to some of the marks, shape ``[N]``."""
        return np.concatenate([self._ends_in(low, high, *fields) for low, high in self.blocks()])

    def _drop_dependent(self) -> None:
        """Leaves out masks and discounts if no other key marks ends, and masks and valids that mean something else."""
        dropped = self.read & _DEPENDENT
        if self.read - _DEPENDENT - {"valids"}:
            dropped = {"masks"} & self.read if self._masks_are_no_ends() else set()
        for field in sorted(dropped):
            self._leave_out(field)
        if "valids" in self.read and not self._valids_lie_beside_ends():
            self._leave_out("valids")
        if {"valids", "terminals"} <= self.read and "timeouts" not in self.read:
            invalid = np.concatenate([self.invalid(*rows) for rows in self.blocks()])
            self._mark_any_end = are_ends_of_trajectories(self.ends_of("terminals"), invalid)

    def _masks_are_no_ends(self) -> bool:
        """Returns whether masks tell nothing about terminal states."""
        if "masks" not in self.read:
            return False
        facts = MaskFacts()
        for low, high in self.blocks():
            marks, zeros = self.block(low, high, use_masks=False), self._flags("masks", low, high, is_zero)
            rewards = None if self._rewards is None else self._rewards.span(low, high).reshape(-1).astype(float)
            facts.add(zeros, marks.terminated, marks.last, rewards)
        return masks_are_no_ends(facts, self.read, are_transitions=self._are_transitions)

    def _valids_lie_beside_ends(self) -> bool:
        """Returns whether rows without a transition lie before or after the end of an episode, rather than within."""
        try:
            invalid = np.concatenate([self.invalid(*rows) for rows in self.blocks()])
        except DatasetError:
            return False
        last = np.concatenate([self.block(*rows).last for rows in self.blocks()])
        return all(
            bool((low > 0 and last[low - 1]) or last[high - 1] or high == self._count) for low, high in runs(invalid)
        )

    @property
    def tells_time_limits(self) -> bool:
        """Whether ends by a time limit can be told from terminal states."""
        pairs = ({"terminals", "dones"}, {"terminals", "masks"}, {"dones", "masks"})
        return bool(self.read & _MARKING_TIME_LIMITS) or self._mark_any_end or any(pair <= self.read for pair in pairs)

    @property
    def tells_every_end(self) -> bool:
        """Whether a mark of episodes as such is read, besides which there are no other ends."""
        return bool(self.read & _MARKING_EVERY_END) or self._mark_any_end

    def _read_by_episode(self, field: str, column: Column) -> Flags | None:
        """Returns the last rows of episodes, shape ``[N]``; None if the numbers tell none."""
        if field not in _OF_EPISODES or column.shape[1:] not in ((), (1,)):
            return None
        if not column.shape or not 0 < column.shape[0] < max(2, self._count) or column.dtype.kind not in "iuf":
            return None
        numbers = column.span(0, column.shape[0]).reshape(-1)
        if column.dtype.kind == "f" and not (np.isfinite(numbers) & (np.floor(numbers) == numbers)).all():
            return None
        rows: NDArray[np.int64] = numbers.astype(np.int64)
        rows = np.cumsum(rows) if field == "lengths" else rows
        if rows[0] < 0 or (np.diff(rows) <= 0).any():
            return None
        if field in ("starts", "start_rows"):
            is_valid, rows = rows[0] == 0 and rows[-1] < self._count, rows[1:]
        else:
            if field == "ends" and rows[-1] == self._count - 1:  # the last rows themselves, not those after them
                rows = rows + 1
            is_valid = rows[0] > 0 and rows[-1] == self._count
        if not is_valid:
            return None
        ends = np.zeros(self._count, dtype=bool)
        ends[rows - 1] = True
        return ends

    def block(self, low: int, high: int, *, use_masks: bool = True) -> MarkBlock:
        """Returns the marks of the rows from ``low`` up to, not including, ``high``."""
        timeouts = self._ends_in(low, high, "timeouts")
        done = self._ends_in(low, high, "dones", "continues")
        terminal = self._ends_in(low, high, "terminals")
        ended = done | terminal | self._ends_in(low, high, "ends", "lengths", "step_types")
        last = ended | timeouts | self._ends_in(low, high, "starts", "start_rows", "steps", "ids")
        last |= self._before("step_types", low, high, is_first_type)
        terminated = terminal if "terminals" in self.read else done & ~timeouts
        if not {"terminals", "dones", "continues"} & self.read:
            zeros = self._flags("masks", low, high, is_zero) | self._flags("discounts", low, high, is_zero)
            terminated = last & zeros
        elif use_masks and "masks" in self.read:
            terminated = terminated & self._flags("masks", low, high, is_zero)
        elif self._mark_any_end:
            terminated = np.zeros(high - low, dtype=bool)
        return MarkBlock(terminated=terminated, truncated=timeouts | (ended & ~terminated), last=last)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yields the ranges of rows that are read at once."""
        for low in range(0, self._count, BLOCK_ROWS):
            yield low, min(low + BLOCK_ROWS, self._count)

    def invalid(self, low: int, high: int) -> Flags:
        """Returns which rows hold no transition."""
        return self._flags("valids", low, high, is_no_one)

    def _ends_in(self, low: int, high: int, *fields: str) -> Flags:
        """Returns which rows are the last of their episodes according to any of the marks."""
        ends = np.zeros(high - low, dtype=bool)
        for field in fields:
            if field in self._by_episode:
                ends |= self._by_episode[field][low:high]
            elif field == "ids":
                ends |= self._before_new_ids(low, high)
            elif field in ("starts", "steps"):
                ends |= self._before(field, low, high, is_one if field == "starts" else is_zero)
            else:
                ends |= self._flags(field, low, high, _END_TESTS.get(field, is_one))
        return ends

    def _flags(self, field: str, low: int, high: int, test: Test) -> Flags:
        column = self.by_row.get(field)
        if column is None:
            return np.zeros(high - low, dtype=bool)
        try:
            return test(column.span(low, high).reshape(-1))
        except ValueError as error:
            raise DatasetError(f"{self._source}: {self._names[field]} holds {error}") from None

    def _before(self, field: str, low: int, high: int, test: Test) -> Flags:
        """Returns which rows come before one that passes a test."""
        passed = self._flags(field, low, min(high + 1, self._count), test)
        return np.append(passed, False)[1 : high - low + 1]

    def _before_new_ids(self, low: int, high: int) -> Flags:
        if "ids" not in self.by_row:
            return np.zeros(high - low, dtype=bool)
        ids = self.by_row["ids"].span(low, min(high + 1, self._count)).reshape(-1)
        return np.append(ids[1:] != ids[:-1], False)[: high - low]


def strict_fields(names: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the fields whose columns must be marks: those of usual names, and ``dones`` only without ``terminals``.

    Args:
        names: Key of each field.
    """
    usual = [field for field in STRICT if names.get(field) in _USUAL]
    if "terminals" not in usual:
        return tuple(usual)
    return tuple(field for field in usual if field == "terminals" or names[field] == "timeouts")


def _is_by_row(field: str, column: Column, count: int) -> bool:
    is_understood = is_numeric(column.dtype) or (field == "ids" and column.dtype.kind in "SU")
    return field not in _ONLY_OF_EPISODES and is_understood and column.shape in ((count,), (count, 1))
