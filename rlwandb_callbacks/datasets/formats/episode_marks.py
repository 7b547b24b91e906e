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
_MARKING_TIME_LIMITS = {"timeouts", "ends", "starts", "start_rows", "lengths", "ids", "step_types"}


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

    Attributes:
        by_row: Columns of shape ``[N]`` or ``[N, 1]`` by field.
        unread: Fields that are left out: they are neither one number per row nor one per episode, their values are no
            marks, or they contradict more usual marks.
    """

    def __init__(self, columns: Mapping[str, Column], names: Mapping[str, str], count: int, source: str) -> None:
        self._names, self._count, self._source = names, count, source
        self.by_row = {field: column for field, column in columns.items() if _is_by_row(field, column, count)}
        self._ends, self._starts = np.zeros(count + 1, dtype=bool), np.zeros(count + 1, dtype=bool)
        self.unread: list[str] = []
        others = {field: column for field, column in columns.items() if field not in self.by_row}
        rows = {field: self._read_by_episode(field, column) for field, column in others.items()}
        self._read = set(columns)
        for field in [field for field, found in rows.items() if found is None]:
            self._leave_out(field)
        self._leave_out_conflicts({field: found for field, found in rows.items() if found is not None})
        self._drop_dependent()

    def _leave_out(self, field: str) -> None:
        self._read.discard(field)
        self.by_row.pop(field, None)
        self.unread.append(field)

    def _leave_out_conflicts(self, rows: Mapping[str, NDArray[np.int64]]) -> None:
        """Leaves out marks whose values are no marks or that contradict more usual ones; takes ``rows`` of the rest."""
        strict = strict_fields({field: self._names[field] for field in self._read})
        for field in [field for field in STRICT if field in self.by_row and field not in strict]:
            if not self._holds_marks(field):
                self._leave_out(field)
        first = [field for field in STRICT if field in self._read and (field != "dones" or "terminals" not in strict)]
        optional = [field for field in OPTIONAL if field in self._read and field not in first]
        if not optional:
            return
        known: Flags = np.zeros(self._count, dtype=bool)
        for field in first:
            known |= self._ends_of(field)
        is_complete = "timeouts" in first
        for field in optional:
            ends = self._ends_of(field, rows.get(field)) if field in rows or self._holds_marks(field) else None
            if ends is None or self._contradicts(field, ends, known, is_complete=is_complete):
                self._leave_out(field)
                continue
            known |= ends
            if field in rows and field in ("starts", "start_rows"):
                self._starts[rows[field]] = True
            elif field in rows:
                self._ends[rows[field] - 1] = True

    def _contradicts(self, field: str, ends: Flags, known: Flags, *, is_complete: bool) -> bool:
        if field == "ids":
            return ids_contradict(self._values("ids"), known)
        is_by_row = field in self.by_row
        return contradicts(self._names[field], ends, known, is_by_row=is_by_row, is_complete=is_complete)

    def _values(self, field: str) -> NDArray[np.generic]:
        return np.concatenate([self.by_row[field].span(*rows).reshape(-1) for rows in self.blocks()])

    def _holds_marks(self, field: str) -> bool:
        """Returns whether the values of a column can be what its name says."""
        if field == "ids":
            return True
        if field == "steps":
            return counts_steps(self._values(field))
        test = is_last_type if field == "step_types" else is_one
        try:
            for low, high in self.blocks():
                test(self.by_row[field].span(low, high).reshape(-1))
        except ValueError:
            return False
        return True

    def _ends_of(self, field: str, rows: NDArray[np.int64] | None = None) -> Flags:
        """Returns the last rows of episodes according to one mark, shape ``[N]``."""
        ends = np.zeros(self._count, dtype=bool)
        if rows is not None:
            ends[rows[rows > 0] - 1] = True
            return ends
        for low, high in self.blocks():
            if field == "ids":
                ends[low:high] = self._before_new_ids(low, high)
            elif field in ("starts", "steps"):
                after = min(high + 1, self._count)
                starts = self._flags(field, low, after, is_one if field == "starts" else is_zero)
                ends[low : after - 1] = starts[1:]
            else:
                test = {"continues": is_no_one, "step_types": is_last_type}.get(field, is_one)
                ends[low:high] = self._flags(field, low, high, test)
        return ends

    def _drop_dependent(self) -> None:
        """Leaves out masks and discounts if no other key marks ends, and masks and valids that mean something else."""
        dropped = self._read & _DEPENDENT
        if self._read - _DEPENDENT - {"valids"}:
            dropped = {"masks"} & self._read if self._masks_are_no_ends() else set()
        for field in sorted(dropped):
            self._leave_out(field)
        if "valids" in self._read and not self._valids_lie_beside_ends():
            self._leave_out("valids")

    def _masks_are_no_ends(self) -> bool:
        """Returns whether masks tell nothing about terminal states.

        They are 0 within episodes, as for padding; 1 at all ends that are marked as terminal, as for rows that count;
        or they disagree with terminals beside which time limits are marked.
        """
        if "masks" not in self._read:
            return False
        any_ended = any_zero = any_denied = False
        for low, high in self.blocks():
            marks, zeros = self.block(low, high, use_masks=False), self._flags("masks", low, high, is_zero)
            if (zeros & ~marks.last).any():
                return True
            any_ended |= bool(marks.terminated.any())
            any_zero |= bool((marks.terminated & zeros).any())
            any_denied |= bool((marks.terminated & ~zeros).any())
        if not {"terminals", "dones", "continues"} & self._read:
            return False
        return (any_ended and not any_zero) or (any_denied and "timeouts" in self._read)

    def _valids_lie_beside_ends(self) -> bool:
        """Returns whether rows without a transition lie before or after the end of an episode, rather than within."""
        if not self._holds_marks("valids"):
            return False
        last = np.concatenate([self.block(*rows).last for rows in self.blocks()])
        invalid = np.concatenate([self.invalid(*rows) for rows in self.blocks()])
        return all(
            bool((low > 0 and last[low - 1]) or last[high - 1] or high == self._count) for low, high in runs(invalid)
        )

    @property
    def tells_time_limits(self) -> bool:
        """Whether ends by a time limit can be told from terminal states."""
        pairs = ({"terminals", "dones"}, {"terminals", "masks"}, {"dones", "masks"})
        return bool(self._read & _MARKING_TIME_LIMITS) or any(pair <= self._read for pair in pairs)

    def _read_by_episode(self, field: str, column: Column) -> NDArray[np.int64] | None:
        """Returns the first rows of episodes, or those after their ends; None if the numbers are none of these."""
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
            return rows if rows[0] == 0 and rows[-1] < self._count else None
        if field == "ends" and rows[-1] == self._count - 1:  # the last rows themselves, not those after them
            rows = rows + 1
        return rows if rows[0] > 0 and rows[-1] == self._count else None

    def block(self, low: int, high: int, *, use_masks: bool = True) -> MarkBlock:
        """Returns the marks of the rows from ``low`` up to, not including, ``high``."""
        timeouts = self._flags("timeouts", low, high, is_one)
        done = self._flags("dones", low, high, is_one) | self._flags("continues", low, high, is_no_one)
        terminal = self._flags("terminals", low, high, is_one)
        ended = done | terminal | self._flags("ends", low, high, is_one) | self._ends[low:high]
        ended |= self._flags("step_types", low, high, is_last_type)
        last = ended | timeouts | self._before_starts(low, high) | self._before_new_ids(low, high)
        terminated = terminal if "terminals" in self._read else done & ~timeouts
        if not {"terminals", "dones", "continues"} & self._read:
            zeros = self._flags("masks", low, high, is_zero) | self._flags("discounts", low, high, is_zero)
            terminated = last & zeros
        elif use_masks and "masks" in self._read:
            terminated = terminated & self._flags("masks", low, high, is_zero)
        return MarkBlock(terminated=terminated, truncated=timeouts | (ended & ~terminated), last=last)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yields the ranges of rows that are read at once."""
        for low in range(0, self._count, BLOCK_ROWS):
            yield low, min(low + BLOCK_ROWS, self._count)

    def invalid(self, low: int, high: int) -> Flags:
        """Returns which rows hold no transition."""
        return self._flags("valids", low, high, is_zero)

    def _flags(self, field: str, low: int, high: int, test: Test) -> Flags:
        column = self.by_row.get(field)
        if column is None:
            return np.zeros(high - low, dtype=bool)
        try:
            return test(column.span(low, high).reshape(-1))
        except ValueError as error:
            raise DatasetError(f"{self._source}: {self._names[field]} holds {error}") from None

    def _before_starts(self, low: int, high: int) -> Flags:
        """Returns which rows come before the first row of an episode."""
        end = min(high + 1, self._count)
        starts = self._flags("starts", low, end, is_one) | self._starts[low:end]
        starts |= self._flags("steps", low, end, is_zero) | self._flags("step_types", low, end, is_first_type)
        ends = np.zeros(high - low, dtype=bool)
        ends[: len(starts) - 1] = starts[1:]
        return ends

    def _before_new_ids(self, low: int, high: int) -> Flags:
        ends = np.zeros(high - low, dtype=bool)
        if "ids" in self.by_row:
            ids = self.by_row["ids"].span(low, min(high + 1, self._count)).reshape(-1)
            ends[: len(ids) - 1] = ids[1:] != ids[:-1]
        return ends


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
