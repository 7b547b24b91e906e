"""Actions and frame rate of an environment, as logs and videos show them."""

from __future__ import annotations

import math
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
from rlwandb_callbacks.environments.pettingzoo import MultiAgentEnv


def describe_actions(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> ActionSpec:
    """Returns the names or bounds of the actions of an environment, or of one environment in a vector."""
    space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    named: Any = list(meanings()) if callable(meanings) else []
    if isinstance(space, spaces.Discrete):
        return _options(int(space.n), int(space.start), named)
    dimensions = env.unwrapped.action_names if isinstance(env.unwrapped, MultiAgentEnv) else ()
    if isinstance(space, spaces.Box):
        low, high = (bound.ravel().astype(np.float64) for bound in (space.low, space.high))
        return ContinuousActions(low, high, dimensions if len(dimensions) == low.size else ())
    if isinstance(space, spaces.MultiDiscrete):
        sizes, starts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
        names = named if len(named) == len(sizes) else [[]] * len(sizes)
        titles = dimensions if len(dimensions) == len(sizes) else ()
        return GroupedActions(tuple(map(_options, sizes, starts, names)), titles)
    if isinstance(space, spaces.MultiBinary):
        count = math.prod(space.shape)
        return BinaryActions(tuple(map(str, named)) if len(named) == count else tuple(f"a[{i}]" for i in range(count)))
    return OtherActions()


def _options(count: int, first: int, named: Any) -> DiscreteActions:
    """Names the options as the environment does if it names all of them, else by their integers."""
    names = () if isinstance(named, str) else tuple(map(str, named))
    return DiscreteActions(names if len(names) == count else tuple(map(str, range(first, first + count))), first)


def frames_per_second(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> float:
    """Returns ``render_fps`` from the environment's metadata; 30 if it is missing or not a positive number."""
    fps = env.metadata.get("render_fps")
    return float(fps) if isinstance(fps, int | float) and fps > 0 else DEFAULT_FPS
