"""Number of steps after which an environment cuts its episodes, as far as it says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rlwandb_callbacks.environments.wrappers import has_own, sub_envs, wrapper_chain

# Of Gymnasium's TimeLimit and vectors, MiniGrid, PettingZoo and Meta-World.
LIMIT_NAMES = ("_max_episode_steps", "max_episode_steps", "max_steps", "max_cycles", "max_path_length")


def step_limits(env: Any) -> tuple[int, ...]:
    """Returns all step limits of an environment, its wrappers and the environments of a vector, in ascending order.

    An attribute with the name of a limit may mean something else, so an episode may be longer than some of them.

    Example:
        >>> import gymnasium
        >>> env = gymnasium.make("CartPole-v1")
        >>> step_limits(env), step_limits(gymnasium.wrappers.TimeLimit(env, 50)), step_limits(env.unwrapped)
        ((500,), (50, 500), ())
    """
    return tuple(sorted(set(_limits(env))))


def _limits(env: Any) -> Iterator[int]:
    for layer in wrapper_chain(env):
        values: list[Any] = [getattr(getattr(layer, "spec", None), "max_episode_steps", None)]
        values += [getattr(layer, name, None) for name in LIMIT_NAMES if has_own(layer, name)]
        yield from (int(value) for value in values if _is_limit(value))
        for single in sub_envs(layer):
            yield from _limits(single)


def _is_limit(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) > 0
