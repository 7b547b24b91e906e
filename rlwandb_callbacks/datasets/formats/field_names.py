"""Keys of flat data sets: one table of aliases for all containers, and warnings about keys that were not read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from rlwandb_callbacks.errors import DatasetError

Aliases: TypeAlias = Mapping[str, tuple[str, ...]]
_MAX_LISTED = 20
_MAX_KEY = 60

REQUIRED = ("observations", "actions", "rewards")
ALIASES: Aliases = {
    "observations": ("observations", "observation", "obs", "states", "state", "ob", "s", "image"),
    "actions": ("actions", "action", "acts", "act", "ac", "a"),
    "rewards": ("rewards", "reward", "rews", "rew", "r"),
    # The step led to a terminal state.
    "terminals": (
        "terminals", "terminal", "terminations", "termination", "terminated", "terminateds", "is_terminal",
        "is_terminated", "next.terminated",
    ),
    # The episode was cut off after the step, as by a time limit.
    "timeouts": (
        "timeouts", "timeout", "truncations", "truncation", "truncated", "truncateds", "is_truncated", "next.truncated",
        "time_outs", "time_out", "time_limits", "time_limit", "TimeLimit.truncated",
    ),
    # The episode ended with the step: in a terminal state, unless another key tells that it was cut off.
    "dones": ("dones", "done", "is_done", "dones_float", "next.done", "d"),
    "continues": (
        "not_done", "not_dones", "not_terminal", "not_terminals", "nonterminal", "nonterminals", "non_terminal",
        "non_terminals", "continues", "continue", "cont",
    ),
    # The last row of each episode: marks, or one number per episode.
    "ends": (
        "episode_terminals", "episode_terminal", "episode_ends", "episode_end", "episode_dones", "episode_done",
        "is_last", "trajectory_ends", "traj_ends",
    ),
    "starts": (
        "episode_starts", "episode_start", "is_first", "trajectory_starts", "traj_starts",
    ),
    "start_rows": ("index", "start_index", "start_indices"),
    "lengths": (
        "episode_lengths", "episode_length", "episode_lens", "ep_lengths", "ep_lens", "trajectory_lengths",
        "traj_lengths", "traj_lens",
    ),
    "ids": (
        "episode_ids", "episode_id", "episode_index", "episode_indices", "episode_idx", "episode_numbers",
        "episode_number", "episode_num", "episode", "eps_id", "eps_ids", "ep_ids", "ep_id", "ep_idx", "traj_ids",
        "traj_id", "traj_idx", "traj_index", "trajectory_ids", "trajectory_id", "trajectory_idx", "trajectory_index",
    ),
    # The number of the step in its episode, from 0.
    "steps": ("frame_index", "step_index", "step_idx", "episode_step", "episode_steps", "timesteps", "timestep"),
    # dm_env.StepType: 0 first, 1 middle, 2 last.
    "step_types": ("step_type", "step_types"),
    # 0 in terminal states; they only tell which ends, marked by other keys, are terminal.
    "masks": ("masks",),
    "discounts": ("discounts", "discount"),
    # 0 for rows that hold no transition.
    "valids": ("valids", "valid"),
}  # fmt: skip
NEXT_OBSERVATIONS = (
    "next_observations", "next_observation", "next_obs", "next_states", "next_state", "new_observations", "new_obs",
    "new_states", "new_state", "obs_next", "s_next", "next_s", "s2",
)  # fmt: skip
# Names of the required fields by layout. D4RL: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning",
# 2020; early files have no timeouts, so that their episodes run together, which is reported. DI-engine:
# offline_data_save_type "hdf5" (ding/utils/data/dataset.py); rewards are [N, 1].
LAYOUTS: Mapping[str, tuple[str, str, str]] = {
    "d4rl": ("observations", "actions", "rewards"),
    "di-engine": ("obs", "action", "reward"),
}

_MARKS = frozenset(
    (
        "done", "dones", "terminal", "terminals", "terminated", "terminateds", "termination", "terminations",
        "truncated", "truncateds", "truncation", "truncations", "timeout", "timeouts", "nonterminal", "nonterminals",
        "boundary", "boundaries", "reset", "resets", "mask", "masks", "valid", "valids", "discount", "discounts",
    )
)  # fmt: skip
_EPISODES = frozenset(
    (
        "episode", "episodes", "ep", "eps", "traj", "trajs", "trajectory", "trajectories", "demo", "demos",
    )
)  # fmt: skip
_PLACES = frozenset(
    (
        "id", "ids", "index", "indices", "idx", "start", "starts", "begin", "end", "ends", "first", "last", "step",
        "steps", "number", "offset", "offsets", "ptr", "length", "lengths", "len", "lens",
    )
)  # fmt: skip
_WHOLE = frozenset(
    (
        "index", "indices", "first", "last", "start", "starts", "end", "ends", "is_first", "is_last", "step_type",
        "episode", "episodes",
    )
)  # fmt: skip
_OTHER = frozenset(
    (
        "action", "actions", "count", "goal", "goals", "info", "infos", "log", "max", "mean", "n", "num", "obs",
        "observation", "observations", "return", "returns", "reward", "rewards", "score", "state", "states", "std",
        "total",
    )
)  # fmt: skip


def aliases_of(layout: str) -> Aliases:
    """Returns the aliases of a layout: those of all layouts, with its own names of the required fields first."""
    own = dict(zip(REQUIRED, LAYOUTS.get(layout, ()), strict=False))
    return {**ALIASES, **{field: (name, *ALIASES[field]) for field, name in own.items()}}


def find_fields(keys: Iterable[object], aliases: Aliases = ALIASES) -> dict[str, str]:
    """Returns the key of each field; fields without a key are left out.

    Example:
        >>> find_fields({"obs": 0, "action": 1, "reward": 2, "info": 3})
        {'observations': 'obs', 'actions': 'action', 'rewards': 'reward'}
    """
    present = set(keys)
    found = {field: next((name for name in names if name in present), None) for field, names in aliases.items()}
    return {field: name for field, name in found.items() if name is not None}


def absent_fields(keys: AbstractSet[object]) -> list[str]:
    """Returns which of observations, actions and rewards have no key."""
    return [field for field in REQUIRED if keys.isdisjoint(ALIASES[field])]


def has_required_fields(keys: AbstractSet[object]) -> bool:
    """Returns whether there are observations, actions and rewards."""
    return not absent_fields(keys)


def listed(keys: Iterable[object]) -> str:
    """Returns keys of a file for a message: the first 20, shortened, without control characters.

    Example:
        >>> listed(["obs", "x" * 99])[-8:]
        'xxxxxxx…'
    """
    shown = [str(key) for key in itertools.islice(keys, _MAX_LISTED + 1)]
    more = ["…"] if len(shown) > _MAX_LISTED else []
    short = [key if len(key) <= _MAX_KEY else f"{key[:_MAX_KEY]}…" for key in shown[:_MAX_LISTED]]
    return ", ".join([key if key.isprintable() else ascii(key) for key in short] + more) or "none"


def missing_fields(source: str, missing: list[str], keys: Iterable[object]) -> DatasetError:
    """Returns the error for missing fields, with the keys that were found and those that are allowed."""
    return DatasetError(
        f"{source} has no {' and no '.join(missing)}. Keys found: {listed(keys)}. "
        f"Allowed are {'; '.join(f'for {field}: ' + ', '.join(ALIASES[field]) for field in missing)}."
    )


def looks_like_mark(key: str) -> bool:
    """Returns whether a key probably marks ends of episodes, whatever its name is exactly.

    Example:
        >>> [looks_like_mark(key) for key in ("next_done", "demo_ends", "index", "episode_return", "next_obs")]
        [True, True, True, False, False]
    """
    name = key.lower()
    words = set(re.split(r"[^a-z]+", name))
    if words & _OTHER:
        return False
    return name in _WHOLE or bool(words & _MARKS) or bool(words & _EPISODES and words & _PLACES)


def unread_keys(keys: Iterable[object], read: Mapping[str, str], left_out: Collection[str] = ()) -> tuple[str, ...]:
    """Returns warnings about keys that were not read although their names are known, or look like marks.

    Args:
        keys: All keys of a data set.
        read: The key that was read for each field.
        left_out: Keys of marks that were left out because of their values.
    """
    names = [key for key in keys if isinstance(key, str) and key not in read.values()]
    other = {name: field for field, known in ALIASES.items() if field in read for name in known}
    second = [f"{name} ({read[other[name]]} was read)" for name in names if name in other]
    marks = [name for name in names if name not in other and (name in left_out or looks_like_mark(name))]
    warnings = []
    if second:
        warnings.append(f"Not read, as another key has the same meaning: {listed(second)}.")
    if marks:
        warnings.append(
            f"Not read, although the name suggests a mark of episodes: {listed(marks)}. Episodes are wrong if no "
            "other key marks them. Marks that are read: terminals, timeouts and dones (0 or 1 per row), episode_ids, "
            "or episode_lengths (one number per episode)."
        )
    return tuple(warnings)
