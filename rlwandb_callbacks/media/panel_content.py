"""Rows of a panel for one step: a bar for each option of a finite action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import (
    MAX_SHOWN_ACTIONS,
    ActionSpec,
    BinaryActions,
    ContinuousActions,
    GroupedActions,
    OtherActions,
    choices_of,
)
from rlwandb_callbacks.core.episode import PolicyScores, QValues, groups_of


@dataclass(frozen=True)
class BarRow:
    """One option of an action."""

    label: str
    value: float | None  # q-value or probability; None if the policy returns none
    is_chosen: bool  # taken, or switched on
    begins_group: bool = False  # first row of a choice that is not the first choice


def label_groups(actions: ActionSpec, scores: PolicyScores | None) -> list[list[str]]:
    """Returns the labels of all options by choice, also if they do not all fit on a panel.

    Example:
        >>> label_groups(BinaryActions(("jump", "fire")), None)
        [['jump'], ['fire']]
    """
    match actions:
        case ContinuousActions():
            return [[name] for name in actions.names or [f"a[{i}]" for i in range(actions.low.size)]]
        case BinaryActions() if not _compares_q_values(scores):
            return [[name] for name in actions.names]
        case OtherActions():
            return []
        case _:
            choices = choices_of(actions)
            titles = _titles(actions, len(choices))
            return [[f"{title} {name}".strip() for name in c.names] for title, c in zip(titles, choices, strict=True)]


def row_count(groups: Sequence[Sequence[str]]) -> int:
    """Returns the number of rows on a panel with these labels: 1 to 18.

    Example:
        >>> row_count([["left", "right"], ["jump"]])
        3
    """
    return sum(allocate_rows([len(group) for group in groups], MAX_SHOWN_ACTIONS)) or 1


def allocate_rows(sizes: Sequence[int], available: int) -> list[int]:
    """Divides the available rows among choices as evenly as their numbers of options allow, the first choices first.

    Example:
        >>> allocate_rows([2, 9], 18), allocate_rows([2, 9], 8), allocate_rows([5, 5, 5], 2)
        ([2, 9], [2, 6], [1, 1, 0])
    """
    rows = [0] * len(sizes)
    while sum(rows) < available and any(count < size for count, size in zip(rows, sizes, strict=True)):
        for index, size in enumerate(sizes):
            rows[index] += int(rows[index] < size and sum(rows) < available)
    return rows


def bars_of(actions: ActionSpec, scores: PolicyScores | None, action: NDArray[np.generic]) -> list[BarRow]:
    """Returns the rows of one step, whose scores have no leading axis; its action has a number for each choice.

    Example:
        >>> [row.label for row in bars_of(BinaryActions(("jump", "fire")), None, np.array([0, 1])) if row.is_chosen]
        ['fire']
    """
    taken = np.asarray(action, dtype=np.int64).ravel().tolist()
    groups = label_groups(actions, scores)
    values: list[NDArray[np.float64] | None] = [group.values for group in groups_of(scores)]
    values = values or [None] * len(groups)
    rows = allocate_rows([len(group) for group in groups], MAX_SHOWN_ACTIONS)
    if isinstance(actions, BinaryActions) and not _compares_q_values(scores):
        on = [None if value is None else float(value[1]) for value in values]
        return [BarRow(label, on[i], bool(taken[i])) for i, (label,) in enumerate(groups[: sum(rows)])]
    bars = []
    for index, (labels, choice) in enumerate(zip(groups, choices_of(actions), strict=True)):
        chosen, scored = taken[index] - choice.first, values[index]
        for position, option in enumerate(_shown_options(scored, chosen, len(labels), rows[index])):
            value = None if scored is None else float(scored[option])
            bars.append(BarRow(labels[option], value, option == chosen, begins_group=index > 0 and position == 0))
    return bars


def action_lines(action: Any) -> list[str]:
    """Returns an action of any other space as text, one line per part.

    Example:
        >>> action_lines({"move": np.array([1, 0]), "speed": np.array(0.5)})
        ['move: [1 0]', 'speed: 0.5']
    """
    if isinstance(action, Mapping):
        return _shortened([f"{key}: {'  '.join(action_lines(value))}" for key, value in action.items()])
    if isinstance(action, tuple):
        return _shortened(["  ".join(action_lines(part)) for part in action])
    return [np.array2string(np.asarray(action), precision=2, threshold=MAX_SHOWN_ACTIONS)]


def _shortened(lines: list[str]) -> list[str]:
    """Replaces the lines that do not fit by their number."""
    left_out = len(lines) - (MAX_SHOWN_ACTIONS - 1)
    return lines if left_out <= 1 else [*lines[:-left_out], f"{left_out} more not shown"]


def _compares_q_values(scores: PolicyScores | None) -> bool:
    """Returns whether a switch needs a row for on and off: one probability is enough, of q-values both are needed."""
    return any(isinstance(group, QValues) for group in groups_of(scores))


def _titles(actions: ActionSpec, count: int) -> Sequence[str]:
    if isinstance(actions, BinaryActions):
        return actions.names
    if isinstance(actions, GroupedActions) and actions.titles:
        return actions.titles
    return [f"a[{i}]" for i in range(count)] if count > 1 else [""]


def _shown_options(values: NDArray[np.float64] | None, chosen: int, count: int, rows: int) -> list[int]:
    """Returns all options if they fit, otherwise the chosen one and the best others."""
    if count <= rows:
        return list(range(count))
    ranked = range(count) if values is None else np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    others = [int(option) for option in ranked if option != chosen]
    return sorted([chosen, *others[: rows - 1]]) if rows else []
