"""A tracker that keeps rows in memory and refuses what no tracker should be given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlwandb_callbacks.core.key_names import Naming
from rlwandb_callbacks.core.values import Scalar, Value


class MemoryTracker:
    """Keeps every row.

    Args:
        naming: The preset of the config whose rows it is to take; None for our own names.

    Attributes:
        rows: One dict per row: the axes, scalars as plain numbers, other values as they are.
        alerts: Title, text and level of each alert.
        flushes: How often it was flushed.
    """

    def __init__(self, naming: str | None = None) -> None:
        self._their_names = frozenset(Naming(naming).table.values())
        self.alerts: list[tuple[str, str, str]] = []
        self.rows: list[dict[str, Any]] = []
        self.flushes = 0

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Keeps a row.

        Raises:
            ValueError: If the row has no step, or a key is both axis and value or has not exactly one slash.
            TypeError: If a value is none of :data:`rlwandb_callbacks.core.values.Value`.
        """
        if "trainer/global_step" not in axes:
            raise ValueError(f"A row needs the axis trainer/global_step; it has {sorted(axes)}.")
        for key, value in values.items():
            if key in axes or not self._is_name(key):
                raise ValueError(f"{key!r} is no key of a value: it must have one slash and be no axis.")
            if not isinstance(value, Value):
                raise TypeError(f"{key!r} is {value!r}, which is no Value.")
        plain = {key: value.value if isinstance(value, Scalar) else value for key, value in values.items()}
        self.rows.append({**axes, **plain})

    def _is_name(self, key: str) -> bool:
        return key.count("/") == 1 or key.startswith("parameters/") or key in self._their_names

    def alert(self, title: str, text: str, level: str) -> None:
        """Keeps an alert."""
        self.alerts.append((title, text, level))

    def flush(self) -> None:
        """Counts."""
        self.flushes += 1

    def column(self, key: str) -> list[Any]:
        """All values that were written under a key, in order."""
        return [row[key] for row in self.rows if key in row]

    def by_update(self) -> list[dict[str, Any]]:
        """What was written at each update as one row; pictures of an evaluation come late, in a row of their own."""
        merged: dict[Any, dict[str, Any]] = {}
        for row in self.rows:
            merged.setdefault(row.get("time/updates"), {}).update(row)
        return list(merged.values())
