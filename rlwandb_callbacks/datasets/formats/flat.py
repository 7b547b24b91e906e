"""Flat layouts: one column per quantity, one row per transition, episodes told apart by marks."""

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
_MARKS = ("terminals", "timeouts", "ends", "starts")
_BLOCK_ROWS = 2**18


def find_roles(keys: Mapping[str, object], aliases: Aliases = ALIASES) -> dict[str, str]:
    """Which key holds which quantity; quantities that no key holds are left out.

    Example:
        >>> find_roles({"obs": 0, "action": 1, "reward": 2, "info": 3})
        {'observations': 'obs', 'actions': 'action', 'rewards': 'reward'}
    """
    found = {role: next((name for name in names if name in keys), None) for role, names in aliases.items()}
    return {role: name for role, name in found.items() if name is not None}


def is_flat(keys: Mapping[str, object], aliases: Aliases = ALIASES) -> bool:
    """Whether observations, actions and rewards are all there."""
    return set(REQUIRED) <= set(find_roles(keys, aliases))


def joined(name: str, found: Column | Tree, source: str) -> Column:
    """One column of a column or of a tree of them; text and objects are refused."""
    if isinstance(found, Mapping):
        if not found:
            raise DatasetError(f"{source}: {name} is an empty group.")
        parts = [joined(f"{name}/{key}", found[key], source) for key in sorted(found, key=_natural)]
        require_equal_lengths(source, {f"{name}/{key}": found.shape for key, found in zip(found, parts, strict=True)})
        return JoinedColumn(parts)
    if not is_numeric(found.dtype):
        raise DatasetError(
            f"{source}: {name} holds {found.dtype} values of shape {found.shape}; allowed are arrays of numbers or "
            "bools. Save it as one array of numbers, with rows of equal shape."
        )
    if not found.shape:
        raise DatasetError(f"{source}: {name} is a single number; allowed is an array with one row per transition.")
    return found


def _natural(key: str) -> tuple[str, int]:
    """Sorts ``_index_10`` of Minari's tuples behind ``_index_9``."""
    stem = key.rstrip("0123456789")
    return stem, int(key[len(stem) :] or -1)


def require_equal_lengths(source: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises a DatasetError unless all arrays have the same number of rows."""
    if len({shape[0] for shape in shapes.values()}) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DatasetError(f"{source}: arrays of unequal length: {found}. Allowed is one row per transition in each.")


class FlatOpened:
    """An open flat data set.

    Args:
        tree: Columns by key; trees of columns for dict observations.
        source: What to call it in messages.
        aliases: Which keys may stand for which quantity.
        keys: All that there are, for messages; by default those of ``tree``.

    Raises:
        DatasetError: If columns are missing, empty, of unequal length, or not of numbers.
    """

    known_actions: ActionSpec | None = None
    warnings: tuple[str, ...] = ()

    def __init__(self, tree: Tree, source: str, aliases: Aliases = ALIASES, keys: tuple[str, ...] = ()) -> None:
        roles = find_roles(tree, aliases)
        missing = [role for role in REQUIRED if role not in roles]
        if missing:
            raise DatasetError(
                f"{source} has no {' and no '.join(missing)}. Keys found: {', '.join(sorted(keys or tree)) or 'none'}. "
                f"Allowed are {'; '.join(f'for {role}: ' + ', '.join(aliases[role]) for role in missing)}."
            )
        self._columns = {role: joined(name, tree[name], source) for role, name in roles.items()}
        self._source = source
        self._names = roles
        require_equal_lengths(source, {roles[role]: column.shape for role, column in self._columns.items()})
        self.observations, self.actions, self.rewards = (self._columns[role] for role in REQUIRED)
        if not self.rewards.shape[0]:
            raise DatasetError(f"{source} has zero transitions: its arrays are empty.")
        self._require_scalars(("rewards", *_MARKS, "ids"))
        self.tells_timeouts = not {"timeouts", "ends", "starts", "ids"}.isdisjoint(roles)

    def _require_scalars(self, roles: tuple[str, ...]) -> None:
        for role in roles:
            column = self._columns.get(role)
            if column is not None and column.shape[1:] not in ((), (1,)):
                raise DatasetError(
                    f"{self._source}: {self._names[role]} has shape {column.shape}; allowed is one number per "
                    "transition, (N,) or (N, 1)."
                )

    def steps(self) -> Iterator[StepBlock]:
        count = self.rewards.shape[0]
        for low in range(0, count, _BLOCK_ROWS):
            high = min(low + _BLOCK_ROWS, count)
            terminated = self._marks("terminals", low, high)
            truncated = self._marks("timeouts", low, high)
            ends = self._marks("ends", low, high) | self._before_starts(low, high) | self._before_changes(low, high)
            rewards = self.rewards.span(low, high).reshape(-1).astype(np.float64)
            last = terminated | truncated | ends
            yield StepBlock(
                rewards=rewards,
                terminated=terminated,
                truncated=truncated | (self._marks("ends", low, high) & ~terminated),
                last=last,
            )

    def _marks(self, role: str, low: int, high: int) -> NDArray[np.bool_]:
        column = self._columns.get(role)
        if column is None:
            return np.zeros(high - low, dtype=bool)
        values = column.span(low, high).reshape(-1)
        if values.dtype.kind != "b" and not ((values == 0) | (values == 1)).all():
            strange = values[(values != 0) & (values != 1)][0]
            raise DatasetError(
                f"{self._source}: {self._names[role]} holds {strange}; allowed are 0 and 1, or false and true, where 1 "
                "marks an episode's last transition (its first in episode_starts)."
            )
        return values.astype(bool)

    def _before_starts(self, low: int, high: int) -> NDArray[np.bool_]:
        ends = np.zeros(high - low, dtype=bool)
        if "starts" in self._columns:
            starts = self._marks("starts", low, min(high + 1, self.rewards.shape[0]))
            ends[: len(starts) - 1] = starts[1:]
        return ends

    def _before_changes(self, low: int, high: int) -> NDArray[np.bool_]:
        ends = np.zeros(high - low, dtype=bool)
        if "ids" in self._columns:
            ids = self._columns["ids"].span(low, min(high + 1, self.rewards.shape[0])).reshape(-1)
            ends[: len(ids) - 1] = ids[1:] != ids[:-1]
        return ends
