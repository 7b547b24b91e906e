"""Numbers of the history on an axis, in compact arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.tracking.run_files.history import history_values

_NUMBERS = (float, int)  # exactly: decoded values have no other types of numbers, and a bool is none


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
        self._reached = max([self._reached, *map(_float, filter(_is_number, first_positions))])
        zero_is_unknown = self._reached > 0
        appends = [(positions.append, values.append) for positions, values in self._points.values()]
        for values in history_values(rows, [*self._points, self._axis]):
            x = _float(values[-1]) if _is_number(values[-1]) else np.nan
            if x > 0:
                zero_is_unknown = False
                self._reached = max(self._reached, x)
            elif zero_is_unknown:
                x = np.nan
            for (add_position, add_value), value in zip(appends, values, strict=False):  # the axis is the last value
                if type(value) in _NUMBERS:
                    add_position(x)
                    try:
                        add_value(value)
                    except OverflowError:
                        add_value(_float(value))

    def series(self) -> dict[str, Series]:
        """Returns the series by key."""
        return {key: Series(np.frombuffer(xs), np.frombuffer(ys)) for key, (xs, ys) in self._points.items()}


def _float(number: float) -> float:
    """Converts a number; integers beyond the range of float64 become infinite."""
    try:
        return float(number)
    except OverflowError:
        return np.inf if number > 0 else -np.inf


def _is_number(value: Any) -> bool:
    return type(value) in _NUMBERS
