"""What an environment's actions are called and where their bounds lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DiscreteActions:
    """A finite set of actions.

    Args:
        names: One per action, in order.
        first: The integer that stands for ``names[0]`` (``Discrete.start``).
    """

    names: tuple[str, ...]
    first: int = 0


@dataclass(frozen=True)
class ContinuousActions:
    """A box of real numbers.

    Args:
        low: Shape ``[D]``, ``-inf`` where unbounded.
        high: Shape ``[D]``, ``inf`` where unbounded.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class OtherActions:
    """Any other space: actions are shown as they are written."""


ActionSpec: TypeAlias = DiscreteActions | ContinuousActions | OtherActions
