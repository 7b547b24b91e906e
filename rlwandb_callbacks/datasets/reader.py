"""Open data sets: what all layouts provide, and a view of some of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.datasets.columns import Column
from rlwandb_callbacks.datasets.episode_boundaries import StepBlock
from rlwandb_callbacks.datasets.unwritten_rows import RowChoice


class DatasetReader(Protocol):
    """An open data set of N transitions."""

    @property
    def observations(self) -> Column:
        """Shape ``[N, ...]``."""
        ...

    @property
    def actions(self) -> Column:
        """Shape ``[N, ...]``, as they are stored."""
        ...

    @property
    def rewards(self) -> Column:
        """Shape ``[N]`` or ``[N, 1]``."""
        ...

    @property
    def declared_actions(self) -> ActionSpec | None:
        """The action space that the file declares."""
        ...

    def steps(self) -> Iterator[StepBlock]:
        """Yields all steps in order, in blocks."""
        ...


class WholeReader(DatasetReader, Protocol):
    """An open data set with all its rows, also those that hold no transition."""

    @property
    def marks_timeouts(self) -> bool:
        """Whether the layout distinguishes time limits from terminal states; may read the marks."""
        ...

    @property
    def marks_every_end(self) -> bool:
        """Whether the layout tells where each episode ends, whatever ends it; may read the marks."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems of the file, except those of the ends of episodes; may read the marks."""
        ...

    def choose_rows(self) -> RowChoice:
        """Chooses the rows that hold transitions."""
        ...


class KeptColumn:
    """The rows of a column that count.

    Args:
        column: The whole column, ``[N, ...]``.
        rows: Ascending indices of the rows, ``[K]``.
    """

    def __init__(self, column: Column, rows: NDArray[np.int64]) -> None:
        self._column, self._rows = column, rows
        self.shape = (len(rows), *column.shape[1:])
        self.dtype = column.dtype

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.generic]:
        return self._column.read(self._rows[rows])

    def span(self, low: int, high: int) -> NDArray[np.generic]:
        return self._column.read(self._rows[low:high])


class KeptReader:
    """An open data set without the rows that hold no transition.

    Args:
        reader: The whole data set.
        kept: Shape ``[N]``: whether each row counts.
    """

    def __init__(self, reader: DatasetReader, kept: NDArray[np.bool_]) -> None:
        self._reader, self._kept = reader, kept
        rows = np.flatnonzero(kept)
        self.observations = KeptColumn(reader.observations, rows)
        self.actions = KeptColumn(reader.actions, rows)
        self.rewards = KeptColumn(reader.rewards, rows)
        self.declared_actions = reader.declared_actions

    def steps(self) -> Iterator[StepBlock]:
        low = 0
        is_before_gap = np.append(~self._kept[1:], False)
        for block in self._reader.steps():
            high = low + len(block.rewards)
            kept, last = self._kept[low:high], block.last | is_before_gap[low:high]
            low = high
            yield StepBlock(
                rewards=block.rewards[kept],
                terminated=block.terminated[kept],
                truncated=block.truncated[kept],
                last=last[kept],
            )
