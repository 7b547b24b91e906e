"""Compares two outputs of a policy, up to rounding."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Gaussian, PolicyStep, groups_of


def fields_of(step: PolicyStep) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a step by name, each ``[B, …]``."""
    fields = {f"action{index}": leaf for index, leaf in enumerate(_leaves(step.actions))}
    fields |= {f"score{index}": group.values for index, group in enumerate(groups_of(step.scores))}
    if isinstance(step.scores, Gaussian):
        fields |= {"mean": step.scores.mean, "std": step.scores.std}
    per_state = {"values": step.values, "chosen_q": step.chosen_q}
    return fields | {name: values for name, values in per_state.items() if values is not None}


@dataclass(frozen=True)
class Comparison:
    """Compares steps of as many rows up to rounding.

    Args:
        tolerance: Largest difference, relative to the numbers themselves and to their typical size.
        row: Compare this row only; None for all.
        among: Compare these fields only; by default all.
        slack: Further absolute difference that is allowed in each field; see :func:`changes_in_row`.
    """

    tolerance: float
    row: int | None = None
    among: Collection[str] = ()
    slack: Mapping[str, float] = field(default_factory=dict)

    def equal_fields(self, first: PolicyStep, second: PolicyStep) -> set[str]:
        """Returns the names of the compared fields that are equal."""
        ours, theirs = fields_of(first), fields_of(second)
        return {
            name
            for name in ours
            if self._includes(name) and name in theirs and self._is_close(name, ours[name], theirs[name])
        }

    def are_equal(self, first: PolicyStep, second: PolicyStep) -> bool:
        """Returns whether all compared fields are equal.

        Where scores are equal, actions are not compared: two best options may be equal up to rounding.
        """
        compared = {name for name in fields_of(first) if self._includes(name)}
        equal = self.equal_fields(first, second)
        scores = {name for name in compared if name.startswith("score")}
        if scores and scores <= equal:
            compared = {name for name in compared if not name.startswith("action")}
        return compared <= equal

    def has_equal_rows(self, step: PolicyStep) -> bool:
        """Returns whether all rows of a step are equal in the fields of ``among``; see :meth:`are_equal`."""
        fields = {name: values for name, values in fields_of(step).items() if name in self.among}
        if any(name.startswith("score") for name in fields):
            fields = {name: values for name, values in fields.items() if not name.startswith("action")}
        return all(
            self._is_close(name, values, np.broadcast_to(values[:1], values.shape)) for name, values in fields.items()
        )

    def _includes(self, name: str) -> bool:
        return not self.among or name in self.among

    def _is_close(self, name: str, first: NDArray[Any], second: NDArray[Any]) -> bool:
        rows, slack = slice(None) if self.row is None else slice(self.row, self.row + 1), self.slack.get(name, 0.0)
        if first.shape != second.shape or first.dtype.kind not in "biufc":
            return first.shape == second.shape and bool(np.all(first[rows] == second[rows]))
        if first.dtype.kind in "biu":
            return slack > 0 or bool(np.array_equal(first[rows], second[rows]))
        finite = np.abs(first[np.isfinite(first)])
        typical = float(np.median(finite)) if finite.size else 0.0
        atol = self.tolerance * typical + slack + 1e-12
        return bool(np.allclose(first[rows], second[rows], rtol=self.tolerance, atol=atol, equal_nan=True))


def changes_in_row(first: PolicyStep, second: PolicyStep, row: int) -> dict[str, float]:
    """Returns the largest absolute change of each numeric field in one row; infinite numbers do not count."""
    ours, theirs = fields_of(first), fields_of(second)
    changes = {}
    for name in ours.keys() & theirs.keys():
        if ours[name].dtype.kind in "biuf" and ours[name].shape == theirs[name].shape:
            pair = ours[name][row].astype(np.float64), theirs[name][row].astype(np.float64)
            both = np.isfinite(pair[0]) & np.isfinite(pair[1])
            changes[name] = float(np.max(np.abs(pair[0] - pair[1]), where=both, initial=0.0))
    return changes


def differ_on_average(ours: list[PolicyStep], theirs: list[PolicyStep], row: int) -> bool:
    """Returns whether the mean actions of one row over at least two steps differ by more than six standard errors."""
    for name in fields_of(ours[0]):
        if name.startswith("action"):
            first, second = (
                np.stack([fields_of(step)[name][row] for step in steps]).astype(np.float64) for steps in (ours, theirs)
            )
            error = np.sqrt((first.var(axis=0, ddof=1) + second.var(axis=0, ddof=1)) / len(first))
            if np.any(np.abs(first.mean(axis=0) - second.mean(axis=0)) > 6 * error + 1e-9):
                return True
    return False


def _leaves(actions: Any) -> Iterator[NDArray[Any]]:
    if isinstance(actions, Mapping):
        for part in actions.values():
            yield from _leaves(part)
    elif isinstance(actions, tuple):
        for part in actions:
            yield from _leaves(part)
    else:
        yield np.asarray(actions)
