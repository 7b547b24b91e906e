"""Flat layouts: one column per field, one row per transition, and marks where episodes end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TypeAlias, Union

import numpy as np

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.datasets.columns import Column, JoinedColumn, is_numeric
from rlwandb_callbacks.datasets.episode_boundaries import StepBlock
from rlwandb_callbacks.datasets.formats.episode_marks import EpisodeMarks, strict_fields
from rlwandb_callbacks.datasets.formats.field_names import (
    ALIASES,
    NEXT_OBSERVATIONS,
    REQUIRED,
    Aliases,
    find_fields,
    missing_fields,
    unread_keys,
)
from rlwandb_callbacks.datasets.formats.padding_rows import find_padding, padding_warning
from rlwandb_callbacks.datasets.unwritten_rows import RowChoice, choose_rows
from rlwandb_callbacks.errors import DatasetError

Tree: TypeAlias = Mapping[str, Union[Column, "Tree"]]


def join_columns(name: str, item: Column | Tree, source: str) -> Column:
    """Joins a tree of columns to one column; text and objects are refused."""
    if isinstance(item, Mapping):
        if not item:
            raise DatasetError(f"{source}: {name} is an empty group.")
        parts = [join_columns(f"{name}/{key}", item[key], source) for key in sorted(item, key=natural_order)]
        require_equal_lengths(source, {f"{name}/{key}": part.shape for key, part in zip(item, parts, strict=True)})
        return JoinedColumn(parts)
    if not is_numeric(item.dtype):
        raise DatasetError(
            f"{source}: {name} holds {item.dtype} values of shape {item.shape}; allowed are arrays of numbers or "
            "bools. Save it as one array of numbers, with rows of equal shape."
        )
    if not item.shape:
        raise DatasetError(f"{source}: {name} is a single number; allowed is an array with one row per transition.")
    return item


def natural_order(key: str) -> tuple[str, int]:
    """Sort key that puts ``_index_10`` of Minari's tuples after ``_index_9``."""
    stem = key.rstrip("0123456789")
    return stem, int(key[len(stem) :] or -1)


def require_equal_lengths(source: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a DatasetError unless all arrays have the same number of rows."""
    if len({shape[0] for shape in shapes.values()}) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DatasetError(f"{source}: arrays of unequal length: {found}. Allowed is one row per transition in each.")


class FlatReader:
    """An open flat data set.

    Args:
        tree: Columns by key; trees of columns for dict observations.
        source: Name of the data set in messages.
        aliases: Keys that are allowed for each field.
        keys: All keys of the source, for messages; by default those of ``tree``.
        warnings: Problems of the file that were found while it was opened.
        may_be_unwritten: Whether the rows may be those of a buffer that was made larger than what was written to it.

    Raises:
        DatasetError: If columns are missing, empty, of unequal length, or not numeric.
    """

    declared_actions: ActionSpec | None = None

    def __init__(
        self,
        tree: Tree,
        source: str,
        aliases: Aliases = ALIASES,
        *,
        keys: Iterable[object] = (),
        warnings: tuple[str, ...] = (),
        may_be_unwritten: bool = True,
    ) -> None:
        self._names = find_fields(tree, aliases)
        self._source = source
        self._may_be_unwritten = may_be_unwritten
        self._keys = tuple(keys) or tuple(tree)
        self._are_transitions = not set(NEXT_OBSERVATIONS).isdisjoint(map(str, self._keys))
        self._opening_warnings = warnings
        if missing := [field for field in REQUIRED if field not in self._names]:
            raise missing_fields(source, missing, sorted(map(str, self._keys)))
        strict = (*REQUIRED, *strict_fields(self._names))
        columns = {field: join_columns(self._names[field], tree[self._names[field]], source) for field in strict}
        require_equal_lengths(source, {self._names[field]: column.shape for field, column in columns.items()})
        self.observations, self.actions, self.rewards = (columns[field] for field in REQUIRED)
        if not self.rewards.shape[0]:
            raise DatasetError(f"{source} has zero transitions: its arrays are empty.")
        for field in ("rewards", *strict[len(REQUIRED) :]):
            self._require_scalars(field, columns[field])
        found = {field: tree[name] for field, name in self._names.items() if field not in REQUIRED}
        self._mark_columns = {field: item for field, item in found.items() if not isinstance(item, Mapping)}

    @cached_property
    def _marks(self) -> EpisodeMarks:
        """The marks; the first access may read them."""
        return EpisodeMarks(
            self._mark_columns,
            self._names,
            self.rewards.shape[0],
            self._source,
            rewards=self.rewards,
            are_transitions=self._are_transitions,
        )

    @property
    def marks_timeouts(self) -> bool:
        return self._marks.tells_time_limits

    @property
    def marks_every_end(self) -> bool:
        return self._marks.tells_every_end

    @property
    def warnings(self) -> tuple[str, ...]:
        read = {field: name for field, name in self._names.items() if field in (*REQUIRED, *self._marks.read)}
        left_out = {
            self._names[field]
            for field, column in self._mark_columns.items()
            if field not in read and column.shape[:1] == self.rewards.shape[:1]
        }
        return (*self._opening_warnings, *unread_keys(self._keys, read, left_out))

    def _require_scalars(self, field: str, column: Column) -> None:
        if column.shape[1:] not in ((), (1,)):
            raise DatasetError(
                f"{self._source}: {self._names[field]} has shape {column.shape}; allowed is one number per "
                f"transition, (N,) or (N, 1).{self._advice(column.shape)}"
            )

    def _advice(self, shape: tuple[int, ...]) -> str:
        """Returns how to save arrays that have an axis of environments or episodes; else an empty text."""
        if len(shape) < 2 or {self.observations.shape[:2], self.actions.shape[:2]} != {shape[:2]}:
            return ""
        first, second = shape[:2]
        return (
            " All arrays have two axes where one is allowed. If these are (step, environment), save each as "
            "array.swapaxes(0, 1).reshape(-1, *array.shape[2:]), with episode_ids="
            f"numpy.repeat(numpy.arange({second}), {first}) beside them. If they are (episode, step), save each as "
            "array.reshape(-1, *array.shape[2:]), with episode_ids="
            f"numpy.repeat(numpy.arange({first}), {second})."
        )

    def steps(self) -> Iterator[StepBlock]:
        for low, high in self._marks.blocks():
            marks = self._marks.block(low, high)
            yield StepBlock(
                rewards=self.rewards.span(low, high).reshape(-1).astype(np.float64),
                terminated=marks.terminated,
                truncated=marks.truncated,
                last=marks.last,
            )

    def choose_rows(self) -> RowChoice:
        """Chooses the rows that were written and hold a step; reads all columns in part or as a whole."""
        blocks = list(self._marks.blocks())
        invalid = np.concatenate([self._marks.invalid(*rows) for rows in blocks])
        if {"terminals", "timeouts"} <= self._marks.read and not self._are_transitions:
            ends = self._marks.ends_of("terminals", "timeouts")
            padding = find_padding(ends, self.observations, self.actions, self.rewards, self._names)
            if padding is not None:
                warning = padding_warning(int(np.count_nonzero(padding)), len(padding))
                return RowChoice(kept=~(padding | invalid), warnings=(warning,))
        if not self._may_be_unwritten:
            return RowChoice(kept=None if not invalid.any() else ~invalid)
        last = np.concatenate([self._marks.block(*rows).last for rows in blocks])
        marks = [
            column for field, column in self._marks.by_row.items() if field != "ids"
        ]  # ids may have been added later
        others = [self.rewards, self.actions, *marks]
        ids = self._marks.by_row.get("ids")
        return choose_rows(self.observations, others, last=last, invalid=invalid, ids=ids)
