"""Compares two outputs of a policy, up to rounding."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Gaussian, PolicyStep, groups_of

_NO_SLACK: Mapping[str, float] = MappingProxyType({})


def fields_of(step: PolicyStep) -> dict[str, NDArray[Any]]:
    """Returns the arrays of a step, each ``[B, …]``; integer actions only if there are no scores to compare."""
    fields = {f"action{index}": leaf for index, leaf in enumerate(_leaves(step.actions))}
    fields |= {f"score{index}": group.values for index, group in enumerate(groups_of(step.scores))}
    if isinstance(step.scores, Gaussian):
        fields |= {"mean": step.scores.mean, "std": step.scores.std}
    per_state = {"values": step.values, "chosen_q": step.chosen_q}
    return fields | {name: values for name, values in per_state.items() if values is not None}


def equal_fields(
    first: PolicyStep,
    second: PolicyStep,
    tolerance: float,
    *,
    row: int | None = None,
    among: Collection[str] = (),
    slack: Mapping[str, float] = _NO_SLACK,
) -> set[str]:
    """Returns the names of the fields that are equal up to rounding.

    Args:
        first: A step.
        second: Another one of as many rows.
        tolerance: Largest difference, relative to the numbers themselves and to their typical size.
        row: Compare this row only.
        among: Compare these fields only; by default all.
        slack: Further absolute difference that is allowed in each field; see :func:`changes_in_row`.
    """
    ours, theirs = fields_of(first), fields_of(second)
    names = [name for name in ours if not among or name in among]
    rows = slice(None) if row is None else slice(row, row + 1)
    return {
        name
        for name in names
        if name in theirs and _is_close(ours[name], theirs[name], tolerance, rows, slack.get(name, 0.0))
    }


def are_equal(
    first: PolicyStep,
    second: PolicyStep,
    tolerance: float,
    *,
    row: int | None = None,
    among: Collection[str] = (),
    slack: Mapping[str, float] = _NO_SLACK,
) -> bool:
    """Returns whether two steps are equal up to rounding; see :func:`equal_fields`.

    Where scores are equal, actions are not compared: two best options may be equal up to rounding.
    """
    compared = {name for name in fields_of(first) if not among or name in among}
    equal = equal_fields(first, second, tolerance, row=row, among=among, slack=slack)
    scores = {name for name in compared if name.startswith("score")}
    if scores and scores <= equal:
        compared = {name for name in compared if not name.startswith("action")}
    return compared <= equal


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


def have_equal_rows(
    step: PolicyStep, tolerance: float, *, among: Collection[str], slack: Mapping[str, float] = _NO_SLACK
) -> bool:
    """Returns whether all rows of a step are equal up to rounding; see :func:`equal_fields`."""
    fields = {name: values for name, values in fields_of(step).items() if name in among}
    if any(name.startswith("score") for name in fields):
        fields = {name: values for name, values in fields.items() if not name.startswith("action")}
    rows = slice(None)
    return all(
        _is_close(values, np.broadcast_to(values[:1], values.shape), tolerance, rows, slack.get(name, 0.0))
        for name, values in fields.items()
    )


def differ_on_average(ours: list[PolicyStep], theirs: list[PolicyStep], row: int) -> bool:
    """Returns whether the mean actions of one row differ by more than six standard errors."""
    for name in fields_of(ours[0]):
        if name.startswith("action"):
            first, second = (
                np.stack([fields_of(step)[name][row] for step in steps]).astype(np.float64) for steps in (ours, theirs)
            )
            error = np.sqrt((first.var(axis=0) + second.var(axis=0)) / len(first))
            if np.any(np.abs(first.mean(axis=0) - second.mean(axis=0)) > 6 * error + 1e-9):
                return True
    return False


def _is_close(first: NDArray[Any], second: NDArray[Any], tolerance: float, rows: slice, slack: float) -> bool:
    if first.shape != second.shape or first.dtype.kind not in "biufc":
        return first.shape == second.shape and bool(np.all(first[rows] == second[rows]))
    if first.dtype.kind in "biu":
        return slack > 0 or bool(np.array_equal(first[rows], second[rows]))
    finite = np.abs(first[np.isfinite(first)])
    typical = float(np.median(finite)) if finite.size else 0.0
    atol = tolerance * typical + slack + 1e-12
    return bool(np.allclose(first[rows], second[rows], rtol=tolerance, atol=atol, equal_nan=True))


def _leaves(actions: Any) -> Iterator[NDArray[Any]]:
    if isinstance(actions, Mapping):
        for part in actions.values():
            yield from _leaves(part)
    elif isinstance(actions, tuple):
        for part in actions:
            yield from _leaves(part)
    else:
        yield np.asarray(actions)
