"""Names of keys: renamed to those of another library for existing dashboards, and made valid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from rlwandb_callbacks.core.presets import PRESETS, Preset

T = TypeVar("T")

ENV_STEPS = "time/env_steps"
CONFLICT_SUFFIX = "_own"
MOVED_SUFFIX = "_rl"  # of groups of an evaluation that other code logs to as well
EVALUATION_GROUPS = ("eval", "q", "policy", "video")  # whose keys may have the name of the evaluation as a part

INVALID_CHARACTERS = re.compile(r"[^\w.-]+")


def valid_name(name: str) -> str:
    """Replaces what neither keys nor file names should contain.

    Example:
        >>> valid_name("distance to goal/m")
        'distance_to_goal_m'
    """
    return INVALID_CHARACTERS.sub("_", name)


class Naming:
    """Renames keys when they are written; values never change.

    Two keys never get the same name: a key that is not in the preset but equals one of its names (a user's metric
    ``train/learning_rate``, under ``sb3``) gets the suffix ``_own``. A key keeps the name that it was given first,
    also if the algorithm is known only later.

    Args:
        preset: One of :data:`rlwandb_callbacks.core.presets.PRESETS`; None keeps our names.
        algorithm: One of :data:`rlwandb_callbacks.core.presets.ALGORITHMS`, on which some names depend; None if it is
            unknown.

    Example:
        >>> Naming("di-engine").key("train/target_q_value"), Naming("sb3").key("train/td_error")
        ('target q_value', 'train/td_error')
        >>> Naming("cleanrl", "sac").key("train/critic_loss"), Naming("sb3").key("eval/near/return_mean")
        ('losses/qf_loss', 'eval/near/mean_reward')
    """

    def __init__(self, preset: str | None = None, algorithm: str | None = None) -> None:
        self.algorithm = algorithm
        self._preset = Preset({}) if preset is None else PRESETS[preset]
        self._reserved = self._preset.all_names
        self._given: dict[str, str] = {}

    @property
    def table(self) -> dict[str, str]:
        """New key by our key, for the algorithm."""
        return self._preset.table(self.algorithm)

    @property
    def names(self) -> frozenset[str]:
        """All names that keys can get."""
        return self._reserved

    def renames(self, key: str) -> bool:
        """Returns whether the preset has a name of its own for a key."""
        return key in self._preset.names

    def key(self, key: str) -> str:
        """Returns the name of one of our keys in the run."""
        name = self._given.get(key)
        if name is None:
            name = self._given[key] = self._name(key)
        return name

    def row(self, row: Mapping[str, T]) -> dict[str, T]:
        """Returns a row with new keys; values and order stay the same."""
        return {self.key(key): value for key, value in row.items()}

    def axes(self, axes: Mapping[str, float], keys: Iterable[str]) -> dict[str, float]:
        """Returns the axes of a row with new keys: those of every row, and those of the groups of its own ``keys``."""
        named, groups = self.row(axes), {self.key(key).split("/")[0] for key in keys}
        if ENV_STEPS in axes:
            named |= {name: axes[ENV_STEPS] for group, name in self._preset.step_of_group.items() if group in groups}
        return named

    def step_of_group(self, axis: str) -> dict[str, str]:
        """Returns the name of one of our axes by group, for groups whose axis has a name of its own."""
        return dict(self._preset.step_of_group) if axis == ENV_STEPS else {}

    def _name(self, key: str) -> str:
        table = self.table
        if key in table:
            return table[key]
        return self._of_named_evaluation(key, table) or (f"{key}{CONFLICT_SUFFIX}" if key in self._reserved else key)

    @staticmethod
    def _of_named_evaluation(key: str, table: Mapping[str, str]) -> str | None:
        """Returns the name of ``eval/<name>/return_mean`` or ``eval_rl/return_mean``, by that of the plain key."""
        group, *parts = key.split("/")
        base = group.removesuffix(MOVED_SUFFIX)
        name = table.get(f"{base}/{parts[-1]}") if parts and base in EVALUATION_GROUPS else None
        if name is None:
            return None
        new_group, _, last = name.rpartition("/")
        moved = MOVED_SUFFIX if new_group and group != base else ""
        return "/".join(part for part in (f"{new_group}{moved}", *parts[:-1], last) if part)
