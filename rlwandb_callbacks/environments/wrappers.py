"""Wrappers and sub-environments of an environment."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorWrapper

if TYPE_CHECKING:
    AnyVectorWrapper: TypeAlias = VectorWrapper[Any, Any, Any]
else:
    AnyVectorWrapper = VectorWrapper  # not generic in Gymnasium 1.1


def wrapper_chain(env: Any) -> Iterator[Any]:
    """Yields the wrappers of an environment from the outermost inwards, and then the innermost environment."""
    yield env
    while isinstance(env, gym.Wrapper | VectorWrapper):
        env = env.env
        yield env


def has_own(layer: Any, name: str) -> bool:
    """Returns whether an object has an attribute itself: wrappers may answer with those of their environment."""
    return inspect.getattr_static(layer, name, None) is not None


def observation_space_of(env: Any) -> Any:
    """Returns the observation space of an environment, or of one environment in a vector."""
    return env.single_observation_space if isinstance(env, VectorEnv) else env.observation_space


def sub_envs(env: Any) -> list[Any]:
    """Returns the list in which an unwrapped vector of this process holds its environments; empty for any other."""
    envs = getattr(env, "envs", None) if isinstance(env, VectorEnv) and not isinstance(env, VectorWrapper) else None
    return envs if isinstance(envs, list) else []


def has_sub_envs(vector: VectorEnv[Any, Any, Any]) -> bool:
    """Returns whether a vector consists of single environments, in this process or in others."""
    return any(isinstance(getattr(vector.unwrapped, name, None), list | tuple) for name in ("envs", "env_fns"))
