"""Recognizes policies that act in [-1, 1] in an environment with other bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

ROUNDING = 1e-6
REACHED = 0.99  # tanh(2.65); a saturated tanh rounds to 1
UNSCALED = (
    "It gives actions between -1 and 1 only and reaches both ends, while the actions of evaluation.env are in {space}. "
    "They are played as they are, not scaled to these bounds. If training scales them, as map_action of tianshou's "
    "policies, action scalers of d3rlpy or a wrapper do, set evaluation.policy to the object that scales them (the "
    "policy or algorithm in place of its network), return low + (actions + 1) / 2 * (high - low), or set "
    "evaluation.env to an environment with the same wrapper, such as gymnasium.wrappers.RescaleAction(env, -1, 1)."
)


class ActionExtremes:
    """Smallest and largest action that a policy gave for each ``Box``, before it was clipped to the bounds."""

    def __init__(self) -> None:
        self._by_space: dict[int, tuple[spaces.Box, NDArray[Any], NDArray[Any]]] = {}

    def clear(self) -> None:
        """Forgets all actions."""
        self._by_space.clear()

    def add(self, space: spaces.Box, actions: NDArray[Any]) -> None:
        """Adds a batch of actions ``[B, *space.shape]``; only those of bounded spaces other than [-1, 1] are kept."""
        is_batch = actions.size and actions.shape[1:] == space.shape and actions.dtype.kind in "biuf"
        if not is_batch or not has_other_bounds(space):
            return
        low, high = actions.min(axis=0), actions.max(axis=0)
        if (known := self._by_space.get(id(space))) is not None:
            low, high = np.minimum(low, known[1]), np.maximum(high, known[2])
        self._by_space[id(space)] = (space, low, high)

    def warning(self) -> str | None:
        """Returns a warning if the actions for a space seem to be in [-1, 1] instead of its bounds."""
        for space, low, high in self._by_space.values():
            is_inside = np.all(low >= -1 - ROUNDING) and np.all(high <= 1 + ROUNDING)
            if is_inside and np.any(_other_bounds(space) & (low <= -REACHED) & (high >= REACHED)):
                return UNSCALED.format(space=space)
        return None


def has_other_bounds(space: Space[Any] | None) -> bool:
    """Returns whether a dimension of a space, or of a part of it, has finite bounds other than -1 and 1."""
    if isinstance(space, spaces.Dict):
        return any(map(has_other_bounds, space.spaces.values()))
    if isinstance(space, spaces.Tuple):
        return any(map(has_other_bounds, space.spaces))
    return isinstance(space, spaces.Box) and space.dtype.kind == "f" and bool(_other_bounds(space).any())


def _other_bounds(space: spaces.Box) -> NDArray[np.bool_]:
    is_bounded = np.isfinite(space.low) & np.isfinite(space.high)
    result: NDArray[np.bool_] = is_bounded & ((space.low != -1) | (space.high != 1))
    return result
