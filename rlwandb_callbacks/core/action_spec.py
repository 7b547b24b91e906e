"""Names and bounds of an environment's actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

MAX_SHOWN_ACTIONS = 18
"""Largest number of actions, or of dimensions of an action, on a panel and as histograms: all actions of Atari."""


@dataclass(frozen=True)
class DiscreteActions:
    """A finite set of actions, with one name per action, in order."""

    names: tuple[str, ...]
    first: int = 0  # integer of the action names[0] (Discrete.start)


@dataclass(frozen=True)
class ContinuousActions:
    """A box of real numbers with D dimensions."""

    low: NDArray[np.float64]  # shape [D], -inf if unbounded
    high: NDArray[np.float64]  # shape [D], inf if unbounded
    names: tuple[str, ...] = ()  # one per dimension; by default they are numbered


@dataclass(frozen=True)
class GroupedActions:
    """Several discrete actions that are taken together (``MultiDiscrete``); multidimensional ones are flattened."""

    groups: tuple[DiscreteActions, ...]  # one per dimension of the action, in order
    titles: tuple[str, ...] = ()  # one per group; by default they are numbered


@dataclass(frozen=True)
class BinaryActions:
    """Several binary actions, each off (0) or on (1) (``MultiBinary``); multidimensional ones are flattened."""

    names: tuple[str, ...]  # one per dimension, in order


@dataclass(frozen=True)
class OtherActions:
    """Actions of any other space, which are shown as text."""


ActionSpec: TypeAlias = DiscreteActions | ContinuousActions | GroupedActions | BinaryActions | OtherActions


def choices_of(actions: ActionSpec) -> tuple[DiscreteActions, ...]:
    """Returns the discrete parts of an action, in the order of its dimensions; none for other spaces.

    Example:
        >>> choices_of(BinaryActions(("jump",)))
        (DiscreteActions(names=('0', '1'), first=0),)
    """
    match actions:
        case DiscreteActions():
            return (actions,)
        case GroupedActions(groups=groups):
            return groups
        case BinaryActions(names=names):
            return (DiscreteActions(("0", "1")),) * len(names)
        case _:
            return ()
