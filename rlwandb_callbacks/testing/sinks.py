"""A sink that keeps rows in memory and refuses what no sink should be given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlwandb_callbacks.core.values import Scalar, Value


class MemorySink:
    """Keeps every row.

    Attributes:
        rows: One dict per row: the axes, scalars as plain numbers, other values as they are.
        flushes: How often it was flushed.
    """

    def __init__(self) -> None:
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
            if key in axes or (key.count("/") != 1 and not key.startswith("parameters/")):
                raise ValueError(f"{key!r} is no key of a value: it must have one slash and be no axis.")
            if not isinstance(value, Value):
                raise TypeError(f"{key!r} is {value!r}, which is no Value.")
        plain = {key: value.value if isinstance(value, Scalar) else value for key, value in values.items()}
        self.rows.append({**axes, **plain})

    def flush(self) -> None:
        """Counts."""
        self.flushes += 1

    def column(self, key: str) -> list[Any]:
        """All values that were written under a key, in order."""
        return [row[key] for row in self.rows if key in row]
