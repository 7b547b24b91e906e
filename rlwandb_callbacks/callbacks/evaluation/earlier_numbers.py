"""Marks numbers that earlier evaluations had and the present one lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping


class EarlierNumbers:
    """Keys of the evaluations of one training.

    W&B's summary keeps the latest value of each key. An interval that cannot be computed any more would thus stay
    beside the mean of a later evaluation; NaN in its place says that it is unknown.

    Example:
        >>> earlier = EarlierNumbers()
        >>> earlier.lacking({"q/bias": 2.0, "eval/return_mean": 5.0}), earlier.lacking({"eval/return_mean": 6.0})
        ({}, {'q/bias': nan})
    """

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def lacking(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Adds the numbers of an evaluation, and returns NaN for each key that only earlier ones had."""
        lacking = sorted(self._keys - numbers.keys())
        self._keys |= numbers.keys()
        return dict.fromkeys(lacking, math.nan)
