"""Which actions environments allow in the states that they are in: what their method ``action_masks`` says.

That is the convention of sb3-contrib, whose ``ActionMasker`` gives the method to any environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rlwandb_callbacks.environments.copies import layers
from rlwandb_callbacks.environments.factory import Env

METHOD = "action_masks"


def has_mask(env: Env) -> bool:
    """Tells whether an environment, or one inside its wrappers, says which actions it allows."""
    return env.has_wrapper_attr(METHOD)


def mask_of(env: Env) -> NDArray[np.bool_]:
    """The actions that an environment allows now: shape ``[A]``, all options of several choices in a row."""
    return np.array(env.get_wrapper_attr(METHOD)(), dtype=np.bool_)


def has_own_masks(envs: VectorEnv[Any, Any, Any]) -> bool:
    """Tells whether a vector itself, and not each of its environments, says which actions are allowed."""
    return _own_method(envs) is not None


def masks_in(envs: VectorEnv[Any, Any, Any]) -> NDArray[np.bool_]:
    """The actions that each environment of a vector allows now: shape ``[B, A]``."""
    ask = _own_method(envs)
    inner: Any = envs.unwrapped
    return stacked(inner.call(METHOD) if ask is None else ask())


def stacked(masks: Iterable[Any]) -> NDArray[np.bool_]:
    """One mask for each of B environments as ``[B, A]``."""
    return np.stack([np.asarray(mask, dtype=np.bool_) for mask in masks])


def _own_method(envs: VectorEnv[Any, Any, Any]) -> Callable[[], Any] | None:
    return next((getattr(layer, METHOD) for layer in layers(envs) if hasattr(layer, METHOD)), None)
