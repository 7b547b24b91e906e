"""Actions and frame rate of an environment, as logs and videos show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.core.action_spec import (
    ActionSpec,
    BinaryActions,
    ContinuousActions,
    DiscreteActions,
    GroupedActions,
    OtherActions,
)
from rlwandb_callbacks.core.values import DEFAULT_FPS
from rlwandb_callbacks.environments.action_names import action_names, dimension_names, option_names
from rlwandb_callbacks.environments.wrappers import wrapper_chain
from rlwandb_callbacks.errors import ConfigError

FRAME_RATES = ("render_fps", "video.frames_per_second")
"""Keys of the metadata: of Gymnasium; of Gym before 0.22 and stable-retro."""


def describe_actions(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any], given: Sequence[str] = ()) -> ActionSpec:
    """Returns the names or bounds of the actions of an environment, or of one environment in a vector.

    Args:
        env: The environment.
        given: ``evaluation.action_names``: names of discrete actions, or of the dimensions of other actions; by default
            those of the environment.

    Raises:
        ConfigError: If ``given`` has another number of names.
    """
    space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
    if isinstance(space, spaces.Discrete):
        count, first = int(space.n), int(space.start)
        _check_number(given, count, "actions", space)
        return _options(count, first, given or action_names(env, count, first))
    if isinstance(space, spaces.Box):
        low, high = (bound.ravel().astype(np.float64) for bound in (space.low, space.high))
        _check_number(given, low.size, "dimensions of its actions", space)
        return ContinuousActions(low, high, tuple(given) or dimension_names(env, low.size))
    if isinstance(space, spaces.MultiDiscrete):
        sizes, starts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
        _check_number(given, len(sizes), "dimensions of its actions", space)
        named = option_names(env)
        options = named if len(named) == len(sizes) else [[]] * len(sizes)
        titles = tuple(given) or dimension_names(env, len(sizes))
        return GroupedActions(tuple(map(_options, sizes, starts, options)), titles)
    if isinstance(space, spaces.MultiBinary):
        count = math.prod(space.shape)
        _check_number(given, count, "dimensions of its actions", space)
        names = tuple(given) or dimension_names(env, count) or action_names(env, count)
        return BinaryActions(names or tuple(f"a[{i}]" for i in range(count)))
    if given:
        raise ConfigError(
            f"evaluation.action_names is {list(given)!r}, and the actions of evaluation.env, {space}, have no names. "
            "Remove it."
        )
    return OtherActions()


def _check_number(given: Sequence[str], count: int, what: str, space: spaces.Space[Any]) -> None:
    if given and len(given) != count:
        raise ConfigError(
            f"evaluation.action_names has {len(given)} names, {', '.join(given)}; it must have {count}, one for each "
            f"of the {what} of evaluation.env, {space}."
        )


def _options(count: int, first: int, names: Sequence[str]) -> DiscreteActions:
    """Names the options if there is a name for each of them, else by their integers."""
    numbers = map(str, range(first, first + count))
    return DiscreteActions(tuple(map(str, names)) if len(names) == count else tuple(numbers), first)


def render_modes(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> tuple[str, ...]:
    """Returns the render modes in the metadata of an environment."""
    modes = (env.metadata or {}).get("render_modes") or ()
    return tuple(map(str, modes)) if isinstance(modes, list | tuple | set) else ()


def frames_per_second(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> float:
    """Returns the frame rate in the environment's metadata, or 30 if there is none.

    It is the first positive number under ``render_fps``, or else under the key of older environments and stable-retro;
    metadata of wrappers, which may have neither, come before those of the environment inside.
    """
    rates = (_rate((layer.metadata or {}).get(key)) for layer in wrapper_chain(env) for key in FRAME_RATES)
    return next((rate for rate in rates if rate is not None), DEFAULT_FPS)


def _rate(value: Any) -> float | None:
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < math.inf else None
