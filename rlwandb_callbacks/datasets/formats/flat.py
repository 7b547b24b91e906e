"""Flat layouts: one column per field, one row per transition, and marks where episodes end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.datasets.columns import Column, JoinedColumn, is_numeric
from rlwandb_callbacks.datasets.episode_boundaries import StepBlock
from rlwandb_callbacks.errors import DatasetError

Tree: TypeAlias = Mapping[str, Union[Column, "Tree"]]
Aliases: TypeAlias = Mapping[str, tuple[str, ...]]

REQUIRED = ("observations", "actions", "rewards")
ALIASES: Aliases = {
    "observations": ("observations", "observation", "obs", "states", "state"),
    "actions": ("actions", "action", "acts", "act"),
    "rewards": ("rewards", "reward", "rews", "rew"),
    "terminals": ("terminals", "terminal", "terminations", "terminated", "dones", "done"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncated"),
    "ends": ("episode_terminals", "episode_ends"),
    "starts": ("episode_starts", "is_first"),
    "ids": ("episode_ids", "episode_id", "traj_ids"),
}
HDF5_LAYOUTS: Mapping[str, Aliases] = {
    # Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning", 2020, and its offline_env.py. Early files
    # have no timeouts, so that their episodes run together; that is reported.
    "d4rl": {field: (field,) for field in ("observations", "actions", "rewards", "terminals", "timeouts")},
    # DI-engine's offline_data_save_type "hdf5" (ding/utils/data/dataset.py): rewards are [N, 1], and done does not tell
    # a time limit from a terminal state.
    "di-engine": {
        "observations": ("obs",),
        "actions": ("action",),
        "rewards": ("reward",),
        "terminals": ("done",),
        "timeouts": ("truncated",),
    },
    "hdf5": ALIASES,
}
_MARKS = ("terminals", "timeouts", "ends", "starts")
_BLOCK_ROWS = 2**18


def find_fields(keys: Mapping[str, object], aliases: Aliases = ALIASES) -> dict[str, str]:
    """Returns the key of each field; fields without a key are left out.

    Example:
        >>> find_fields({"obs": 0, "action": 1, "reward": 2, "info": 3})
        {'observations': 'obs', 'actions': 'action', 'rewards': 'reward'}
    """
    found = {field: next((name for name in names if name in keys), None) for field, names in aliases.items()}
    return {field: name for field, name in found.items() if name is not None}


def has_required_fields(keys: Mapping[str, object], aliases: Aliases = ALIASES) -> bool:
    """Returns whether there are observations, actions and rewards."""
    return set(REQUIRED) <= set(find_fields(keys, aliases))


def missing_fields(source: str, missing: list[str], keys: tuple[str, ...], aliases: Aliases = ALIASES) -> DatasetError:
    """Returns the error for missing fields, with the keys that were found and those that are allowed."""
    return DatasetError(
        f"{source} has no {' and no '.join(missing)}. Keys found: {', '.join(keys) or 'none'}. "
        f"Allowed are {'; '.join(f'for {field}: ' + ', '.join(aliases[field]) for field in missing)}."
    )


def join_columns(name: str, item: Column | Tree, source: str) -> Column:
    """Joins a tree of columns to one column; text and objects are refused."""
    if isinstance(item, Mapping):
        if not item:
            raise DatasetError(f"{source}: {name} is an empty group.")
        parts = [join_columns(f"{name}/{key}", item[key], source) for key in sorted(item, key=_natural_order)]
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


def _natural_order(key: str) -> tuple[str, int]:
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

    Raises:
        DatasetError: If columns are missing, empty, of unequal length, or not numeric.
    """

    declared_actions: ActionSpec | None = None

    def __init__(
        self,
        tree: Tree,
        source: str,
        aliases: Aliases = ALIASES,
        keys: tuple[str, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._names = find_fields(tree, aliases)
        missing = [field for field in REQUIRED if field not in self._names]
        if missing:
            raise missing_fields(source, missing, tuple(sorted(keys or tree)), aliases)
        self._columns = {field: join_columns(name, tree[name], source) for field, name in self._names.items()}
        self._source = source
        self.warnings = warnings
        require_equal_lengths(source, {self._names[field]: column.shape for field, column in self._columns.items()})
        self.observations, self.actions, self.rewards = (self._columns[field] for field in REQUIRED)
        if not self.rewards.shape[0]:
            raise DatasetError(f"{source} has zero transitions: its arrays are empty.")
        self._require_scalars(("rewards", *_MARKS, "ids"))
        self.marks_timeouts = not {"timeouts", "ends", "starts", "ids"}.isdisjoint(self._names)

    def _require_scalars(self, fields: tuple[str, ...]) -> None:
        for field in fields:
            column = self._columns.get(field)
            if column is not None and column.shape[1:] not in ((), (1,)):
                raise DatasetError(
                    f"{self._source}: {self._names[field]} has shape {column.shape}; allowed is one number per "
                    "transition, (N,) or (N, 1)."
                )

    def steps(self) -> Iterator[StepBlock]:
        count = self.rewards.shape[0]
        for low in range(0, count, _BLOCK_ROWS):
            high = min(low + _BLOCK_ROWS, count)
            terminated = self._marks("terminals", low, high)
            truncated = self._marks("timeouts", low, high)
            ends = self._marks("ends", low, high)
            yield StepBlock(
                rewards=self.rewards.span(low, high).reshape(-1).astype(np.float64),
                terminated=terminated,
                truncated=truncated | (ends & ~terminated),
                last=terminated | truncated | ends | self._before_starts(low, high) | self._before_new_ids(low, high),
            )

    def _marks(self, field: str, low: int, high: int) -> NDArray[np.bool_]:
        column = self._columns.get(field)
        if column is None:
            return np.zeros(high - low, dtype=bool)
        values = column.span(low, high).reshape(-1)
        if values.dtype.kind != "b" and not ((values == 0) | (values == 1)).all():
            invalid = values[(values != 0) & (values != 1)][0]
            raise DatasetError(
                f"{self._source}: {self._names[field]} holds {invalid}; allowed are 0 and 1, or false and true, where "
                "1 marks an episode's last transition (its first in episode_starts)."
            )
        return values.astype(bool)

    def _before_starts(self, low: int, high: int) -> NDArray[np.bool_]:
        ends = np.zeros(high - low, dtype=bool)
        if "starts" in self._columns:
            starts = self._marks("starts", low, min(high + 1, self.rewards.shape[0]))
            ends[: len(starts) - 1] = starts[1:]
        return ends

    def _before_new_ids(self, low: int, high: int) -> NDArray[np.bool_]:
        ends = np.zeros(high - low, dtype=bool)
        if "ids" in self._columns:
            ids = self._columns["ids"].span(low, min(high + 1, self.rewards.shape[0])).reshape(-1)
            ends[: len(ids) - 1] = ids[1:] != ids[:-1]
        return ends
