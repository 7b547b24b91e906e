"""What the rows of a panel say of one step: a bar for each choice that a finite action offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import (
    ActionSpec,
    BinaryActions,
    ContinuousActions,
    DiscreteActions,
    GroupedActions,
    OtherActions,
    choices_of,
)
from rlwandb_callbacks.core.episode import PolicyScores, QValues, groups_of

MAX_ROWS = 18


@dataclass(frozen=True)
class BarRow:
    """One option of an action.

    Args:
        label: What it is called.
        value: Its q-value or probability; None where the policy gives none.
        is_chosen: It was taken, or switched on.
        begins_group: The first row of a choice, other than the first choice.
    """

    label: str
    value: float | None
    is_chosen: bool
    begins_group: bool = False


def row_count(actions: ActionSpec, scores: PolicyScores | None) -> int:
    """How many rows the panel of an episode has, at most 18.

    Example:
        >>> row_count(DiscreteActions(("left", "right")), None)
        2
    """
    match actions:
        case ContinuousActions():
            return min(MAX_ROWS, actions.low.size)
        case BinaryActions() if not _compares_q_values(scores):
            return min(MAX_ROWS, len(actions.names))
        case _:
            sizes = [len(choice.names) for choice in choices_of(actions)]
            return sum(shares(sizes, MAX_ROWS)) or 1


def labels_of(actions: ActionSpec, scores: PolicyScores | None) -> list[str]:
    """What all rows are called that the panel of an episode may show, also those that have no room on it at a time.

    Example:
        >>> labels_of(DiscreteActions(("left", "right")), None)
        ['left', 'right']
    """
    match actions:
        case ContinuousActions():
            return list(actions.names) or [f"a[{i}]" for i in range(actions.low.size)]
        case BinaryActions() if not _compares_q_values(scores):
            return list(actions.names)
        case OtherActions():
            return []
        case _:
            choices = choices_of(actions)
            titles = _titles(actions, len(choices))
            return [_label(title, name) for title, choice in zip(titles, choices, strict=True) for name in choice.names]


def _label(title: str, option: str) -> str:
    return f"{title} {option}".strip()


def shares(sizes: Sequence[int], room: int) -> list[int]:
    """Divides rows among choices: as evenly as their sizes allow, and at least one each as long as there are any.

    Args:
        sizes: Options of each choice.
        room: Rows in all.

    Example:
        >>> shares([2, 9], 18), shares([2, 9], 8), shares([5, 5, 5], 2)
        ([2, 9], [2, 6], [1, 1, 0])
    """
    rows = [0] * len(sizes)
    while sum(rows) < room and any(given < size for given, size in zip(rows, sizes, strict=True)):
        for index, size in enumerate(sizes):
            rows[index] += int(rows[index] < size and sum(rows) < room)
    return rows


def bars_of(actions: ActionSpec, scores: PolicyScores | None, action: NDArray[np.generic]) -> list[BarRow]:
    """The rows of one step.

    Args:
        actions: Of a finite space.
        scores: Of this step, without a leading axis.
        action: That was taken, of any shape that holds one number for each choice.

    Example:
        >>> [row.label for row in bars_of(DiscreteActions(("left", "right")), None, np.array(1)) if row.is_chosen]
        ['right']
    """
    taken = np.asarray(action, dtype=np.int64).ravel().tolist()
    values = [group.values for group in groups_of(scores)]
    if isinstance(actions, BinaryActions) and not _compares_q_values(scores):
        return [
            BarRow(name, float(values[i][1]) if values else None, bool(taken[i]))
            for i, name in enumerate(actions.names[:MAX_ROWS])
        ]
    choices = choices_of(actions)
    rows = shares([len(choice.names) for choice in choices], MAX_ROWS)
    names = _titles(actions, len(choices))
    return [
        row
        for i, choice in enumerate(choices)
        for row in _rows_of_choice(choice, names[i], values[i] if values else None, taken[i] - choice.first, rows[i], i)
    ]


def written(action: Any) -> list[str]:
    """An action of any other space in words, one line for each of its parts.

    Example:
        >>> written({"move": np.array([1, 0]), "speed": np.array(0.5)})
        ['move: [1 0]', 'speed: 0.5']
    """
    if isinstance(action, Mapping):
        return [f"{key}: {'  '.join(written(value))}" for key, value in action.items()][:MAX_ROWS]
    if isinstance(action, tuple):
        return ["  ".join(written(part)) for part in action][:MAX_ROWS]
    return [np.array2string(np.asarray(action), precision=2, threshold=MAX_ROWS)]


def _compares_q_values(scores: PolicyScores | None) -> bool:
    """A probability tells all about a switch; of q-values both are needed."""
    return any(isinstance(group, QValues) for group in groups_of(scores))


def _titles(actions: ActionSpec, count: int) -> Sequence[str]:
    if isinstance(actions, BinaryActions):
        return actions.names
    if isinstance(actions, GroupedActions) and actions.titles:
        return actions.titles
    return [f"a[{i}]" for i in range(count)] if count > 1 else [""]


def _rows_of_choice(
    choice: DiscreteActions, title: str, values: NDArray[np.float64] | None, chosen: int, room: int, index: int
) -> list[BarRow]:
    shown = _shown_options(values, chosen, len(choice.names), room)
    return [
        BarRow(
            _label(title, choice.names[option]),
            None if values is None else float(values[option]),
            option == chosen,
            begins_group=index > 0 and place == 0,
        )
        for place, option in enumerate(shown)
    ]


def _shown_options(values: NDArray[np.float64] | None, chosen: int, count: int, room: int) -> list[int]:
    """All options where there is room, else the chosen one and the best others."""
    if count <= room:
        return list(range(count))
    ranked = range(count) if values is None else np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    others = [int(option) for option in ranked if option != chosen]
    return sorted([chosen, *others[: room - 1]])[: max(room, 0)] if room else []
