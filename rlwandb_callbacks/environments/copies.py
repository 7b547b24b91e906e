"""Makes environments like an existing one, which is not modified."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.environments.wrappers import wrapper_chain
from rlwandb_callbacks.errors import EnvError, describe_error

OMITTED_WRAPPERS = ("RecordVideo", "HumanRendering")


def spec_or_copier(env: Any) -> EnvSpec | Callable[..., Any]:
    """Returns an environment's spec if it records the arguments of all wrappers, else a function that copies it.

    The single, vector or parallel environment is neither stepped, reset nor closed.

    Raises:
        EnvError: If the environment has no such spec and cannot be copied.
    """
    if isinstance(env, gym.Env):
        spec = env.spec
        if spec is not None and all(wrapper.kwargs is not None for wrapper in spec.additional_wrappers):
            return _without_output(spec)
    try:
        return partial(_copy, _copy(env))  # the user's environment may change, its copy does not
    except Exception as error:
        raise EnvError(
            f"evaluation.env is the environment {env!r}, which can neither be made again from its spec nor be copied: "
            f"{describe_error(error)} Set evaluation.env to a function that makes it."
        ) from error


def _without_output(spec: EnvSpec) -> EnvSpec:
    """Copies a spec without what opens windows or writes files."""
    spec = copy.deepcopy(spec)
    spec.kwargs.pop("render_mode", None)
    wrappers = spec.additional_wrappers
    kept = (each for each in wrappers if each.entry_point.rpartition(":")[2] not in OMITTED_WRAPPERS)
    spec.additional_wrappers = tuple(kept)
    return spec


def _copy(env: Any, render_mode: str | None = None) -> Any:
    """Makes the innermost environment again and copies the wrappers around it."""
    *wrappers, base = wrapper_chain(env)
    copied = _copy_base(base, render_mode)
    # References of a wrapper to the environments inside it become references to their copies.
    memo = {id(base): copied}
    for wrapper in reversed(wrappers):
        if type(wrapper).__name__ not in OMITTED_WRAPPERS:
            copied = copy.deepcopy(wrapper, memo)
        memo[id(wrapper)] = copied
    return copied


def _copy_base(base: Any, render_mode: str | None) -> Any:
    if isinstance(base, VectorEnv):
        return _copy_vector(base, render_mode)
    if isinstance(base, gym.Env) and base.spec is not None:
        spec = _without_output(base.spec)
        spec.additional_wrappers = ()
        return gym.make(spec, disable_env_checker=True, render_mode=render_mode).unwrapped
    return _deepcopy(base, render_mode)


def _copy_vector(base: Any, render_mode: str | None) -> Any:
    if base.spec is not None and "vectorization_mode" in base.spec.kwargs:
        spec = copy.deepcopy(base.spec)
        spec.kwargs.pop("render_mode", None)
        mode: dict[str, Any] = {"render_mode": render_mode}
        return gym.make_vec(spec, **mode)
    if not hasattr(base, "env_fns"):
        return _deepcopy(base, render_mode)
    options = ("copy", "observation_mode", "autoreset_mode")
    return type(base)(base.env_fns, **{name: getattr(base, name) for name in options if hasattr(base, name)})


def _deepcopy(base: Any, render_mode: str | None) -> Any:
    copied = copy.deepcopy(base)
    if hasattr(copied, "render_mode"):
        copied.render_mode = render_mode
    return copied
