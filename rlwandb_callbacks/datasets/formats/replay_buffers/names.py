"""Names of the attributes of replay buffers, and of the numbers that tell how far they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.formats.field_names import NEXT_OBSERVATIONS, find_fields, has_required_fields
from rlwandb_callbacks.datasets.formats.memory import as_array

HEADS = (
    "pos", "_pos", "ptr", "_ptr", "position", "_position", "pointer", "_pointer", "memory_index", "idx", "_idx",
    "cursor", "_cursor", "next_idx", "_next_idx", "next_index", "_next_index", "insert_index", "_insert_index",
    "insertion_idx", "_insertion_idx", "insert_idx", "_insert_idx", "write_index", "write_idx", "write_ptr",
    "write_pos", "_top", "current_index", "current_idx", "curr_idx", "cur_idx",
)  # fmt: skip
FULL = ("full", "filled", "is_full", "_full")
COUNTS = ("size", "_size", "current_size", "curr_size", "cur_size", "_current_size", "num_stored", "_num_stored")
ENVIRONMENTS = ("n_envs", "num_envs", "n_env", "num_env")
ROLLOUT = frozenset(("advantages", "returns", "episode_starts"))
_SETTINGS = ("env_index", "optimize_memory_usage", "handle_timeout_termination")
_NUMBERS = frozenset((*HEADS, *FULL, *COUNTS))


def usual_name(key: str) -> str:
    """Returns the name of an array as in flat data sets.

    Example:
        >>> [usual_name(key) for key in ("obs_buf", "next_obses", "_rewards")]
        ['obs', 'next_obs', 'rewards']
    """
    return key.removeprefix("_").removesuffix("_buf").replace("obses", "obs")


def find_number(attributes: Mapping[str, Any], names: tuple[str, ...] | None = None) -> tuple[str, int] | None:
    """Returns the name and value of the first attribute that is one whole number, by default a position."""
    for name in HEADS if names is None else names:
        value = attributes.get(name)
        if isinstance(value, (bool, int, np.generic, np.ndarray)) or hasattr(value, "detach"):
            number = as_array(value, name)
            if is_number(number):
                return name, int(number.reshape(())[()])
    return None


def is_number(item: Any) -> bool:
    """Returns whether an array, or a column of a file, is one whole number."""
    shape, dtype = getattr(item, "shape", None), getattr(item, "dtype", None)
    return shape in ((), (1,)) and isinstance(dtype, np.dtype) and dtype.kind in "iub"


def number_keys(keys: Iterable[object]) -> list[str]:
    """Returns the keys that may be a position or a fill level, if the keys of a file have both and all fields."""
    names = set(map(str, keys))
    if names.isdisjoint(HEADS) or names.isdisjoint((*FULL, *COUNTS)):
        return []
    return sorted(names & _NUMBERS) if has_required_fields(set(map(usual_name, names))) else []


def has_position(numbers: Mapping[str, Any]) -> bool:
    """Returns whether there are a position and a fill level.

    Args:
        numbers: The arrays, or columns of a file, of ``number_keys``.
    """
    found = {key for key, item in numbers.items() if isinstance(item, (bool, int)) or is_number(item)}
    return not found.isdisjoint(HEADS) and not found.isdisjoint((*FULL, *COUNTS))


def buffer_keys(keys: Iterable[object]) -> list[str]:
    """Returns the keys of a file that are read of a buffer: its fields, next observations, and numbers."""
    names = list(map(str, keys))
    other = {*_NUMBERS, *ENVIRONMENTS, *_SETTINGS, *ROLLOUT}
    fields = set(find_fields({usual_name(name) for name in names}).values()) | {*NEXT_OBSERVATIONS}
    return [name for name in names if name in other or usual_name(name) in fields]
