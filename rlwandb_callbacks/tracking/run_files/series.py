"""Numbers of the history on an axis, in compact arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.tracking.run_files.history import ABSENT, history_numbers, number_of


@dataclass(frozen=True)
class Series:
    """Values of a key on an axis, in the order of logging.

    Args:
        positions: Values of the axis, float64 [n]; NaN where the row has none or where it is not known.
        values: Values of the key, float64 [n]; integers beyond 2**53 are rounded (a column has them exactly).
    """

    positions: NDArray[np.float64]
    values: NDArray[np.float64]


class SeriesReader:
    """Collects series from the rows of the folders of a run.

    Args:
        keys: Keys of the series.
        axis: Key of the x axis.
    """

    def __init__(self, keys: Sequence[str], axis: str) -> None:
        self._axis = axis
        self._points = {key: (array("d"), array("d")) for key in keys}
        self._reached = 0.0

    def add_folder(self, rows: Iterable[bytes], first_positions: Iterable[Any] = ()) -> None:
        """Adds the rows of the next folder.

        Args:
            rows: Records with rows of the history.
            first_positions: Values of the axis in the summary before the first row: that of the resumed run, if there
                is one, and that of the first row, which W&B writes before the row. Other values than numbers are
                ignored.
        """
        first_numbers = [number for number in map(number_of, first_positions) if number is not ABSENT]
        self._reached = max([self._reached, *first_numbers])
        zero_is_unknown = self._reached > 0
        appends = [(positions.append, values.append) for positions, values in self._points.values()]
        for values in history_numbers(rows, [*self._points, self._axis]):
            x = np.nan if values[-1] is ABSENT else values[-1]
            if x > 0:
                zero_is_unknown = False
                self._reached = max(self._reached, x)
            elif zero_is_unknown:
                x = np.nan
            for (add_position, add_value), value in zip(appends, values, strict=False):  # the axis is the last value
                if value is not ABSENT:
                    add_position(x)
                    add_value(value)

    def series(self) -> dict[str, Series]:
        """Returns the series by key."""
        return {key: Series(np.frombuffer(xs), np.frombuffer(ys)) for key, (xs, ys) in self._points.items()}
