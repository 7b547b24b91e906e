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
        names: One per dimension; by default they are numbered.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupedActions:
    """Several finite choices that are made at once (``MultiDiscrete``).

    Args:
        groups: One per dimension of the action, in order; arrays of choices are flattened.
        titles: What each is called; by default they are numbered.
    """

    groups: tuple[DiscreteActions, ...]
    titles: tuple[str, ...] = ()


@dataclass(frozen=True)
class BinaryActions:
    """Switches, each of them off (0) or on (1) (``MultiBinary``).

    Args:
        names: One per switch, in order; arrays of switches are flattened.
    """

    names: tuple[str, ...]

    def as_groups(self) -> GroupedActions:
        """The same as choices between 0 and 1.

        Example:
            >>> BinaryActions(("jump",)).as_groups().groups[0].names
            ('0', '1')
        """
        return GroupedActions((DiscreteActions(("0", "1")),) * len(self.names))


@dataclass(frozen=True)
class OtherActions:
    """Any other space: actions are shown as they are written."""


ActionSpec: TypeAlias = DiscreteActions | ContinuousActions | GroupedActions | BinaryActions | OtherActions


def choices_of(actions: ActionSpec) -> tuple[DiscreteActions, ...]:
    """The finite choices that an action consists of, in the order of its dimensions; none for other spaces.

    Example:
        >>> len(choices_of(DiscreteActions(("left", "right")))), len(choices_of(OtherActions()))
        (1, 0)
    """
    match actions:
        case DiscreteActions():
            return (actions,)
        case GroupedActions(groups=groups):
            return groups
        case BinaryActions():
            return actions.as_groups().groups
        case _:
            return ()
