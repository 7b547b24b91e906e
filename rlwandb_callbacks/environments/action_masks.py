"""Valid actions of environments, from their method ``action_masks``.

This is the convention of sb3-contrib, whose ``ActionMasker`` adds the method to any environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rlwandb_callbacks.environments.wrappers import wrapper_chain

METHOD = "action_masks"


def has_action_masks(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> bool:
    """Returns whether an environment or vector, or one inside its wrappers, has the method itself."""
    return _method(env) is not None


def action_mask(env: gym.Env[Any, Any]) -> NDArray[np.bool_]:
    """Returns the valid actions in the current state: shape ``[A]``, the options of all dimensions concatenated."""
    return np.array(env.get_wrapper_attr(METHOD)(), dtype=np.bool_)


def vector_action_masks(envs: VectorEnv[Any, Any, Any]) -> NDArray[np.bool_]:
    """Returns the valid actions of each environment of a vector: shape ``[B, A]``."""
    method = _method(envs)
    inner: Any = envs.unwrapped
    return stack_masks(inner.call(METHOD) if method is None else method())


def stack_masks(masks: Iterable[Any]) -> NDArray[np.bool_]:
    """Stacks the masks of B environments to ``[B, A]``."""
    return np.stack([np.asarray(mask, dtype=np.bool_) for mask in masks])


def _method(env: Any) -> Callable[[], Any] | None:
    return next((getattr(layer, METHOD) for layer in wrapper_chain(env) if hasattr(layer, METHOD)), None)
