"""A tracker that stores rows in memory and validates them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlwandb_callbacks.core.key_names import Naming
from rlwandb_callbacks.core.presets import PRESETS
from rlwandb_callbacks.core.values import Scalar, Value

NAMED_KEY = re.compile(r"(eval|q|policy|video|dataset)(_rl)?(/[^/]+){2,3}")  # of an evaluation or of its task


class MemoryTracker:
    """Stores all rows in memory, from any thread.

    Args:
        naming: Preset of the config that the rows are written with; None for our own names.

    Raises:
        ValueError: If there is no such preset.

    Attributes:
        rows: One dict per row: the axes, scalars as plain numbers, other values unchanged.
        alerts: Title, text and level of each alert.
        flushes: Number of flushes.
        closes: Number of times that it was closed; it may be written to again.
    """

    def __init__(self, naming: str | None = None) -> None:
        if naming is not None and naming not in PRESETS:
            raise ValueError(f"naming is {naming!r}; it must be None or one of {sorted(PRESETS)}.")
        self._preset_names = Naming(naming).names
        self.alerts: list[tuple[str, str, str]] = []
        self.rows: list[dict[str, Any]] = []
        self.flushes = self.closes = 0

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Stores a row.

        Raises:
            ValueError: If the axis ``trainer/global_step`` is missing, or a key is an axis or has the wrong number of
                slashes: all keys have one, and those of a named evaluation have two.
            TypeError: If a value is not a :data:`rlwandb_callbacks.core.values.Value`.
        """
        if "trainer/global_step" not in axes:
            raise ValueError(f"A row needs the axis 'trainer/global_step'; its axes are {sorted(axes)}.")
        for key, value in values.items():
            if key in axes or not self._is_valid(key):
                raise ValueError(
                    f"{key!r} is not a valid key: it must contain exactly one slash, or a further one with the name of "
                    "an evaluation, and not be an axis."
                )
            if not isinstance(value, Value):
                raise TypeError(f"{key!r} is {value!r}, which is not a Value.")
        plain = {key: value.value if isinstance(value, Scalar) else value for key, value in values.items()}
        self.rows.append({**axes, **plain})

    def _is_valid(self, key: str) -> bool:
        has_parts = key.count("/") == 1 or NAMED_KEY.fullmatch(key) is not None
        return has_parts or key.startswith("parameters/") or self._is_of_preset(key)

    def _is_of_preset(self, key: str) -> bool:
        """Returns whether a key is a name of the preset, or its last part is one, after those of an evaluation."""
        return key in self._preset_names or key.rpartition("/")[2] in self._preset_names

    def alert(self, title: str, text: str, level: str) -> None:
        """Stores an alert."""
        self.alerts.append((title, text, level))

    def flush(self) -> None:
        """Counts a flush."""
        self.flushes += 1

    def close(self) -> None:
        """Counts the end of a training; the rows stay."""
        self.closes += 1

    def column(self, key: str) -> list[Any]:
        """Returns the values of a key, in the order of the rows."""
        return [row[key] for row in self.rows if key in row]

    def by_update(self) -> list[dict[str, Any]]:
        """Returns one row per update; figures and videos of an evaluation are written later, in a row of their own."""
        merged: dict[Any, dict[str, Any]] = {}
        for row in self.rows:
            merged.setdefault(row.get("time/updates"), {}).update(row)
        return list(merged.values())
