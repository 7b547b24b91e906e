"""Makes environments like one that somebody else owns, without touching it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv, VectorWrapper

from rlwandb_callbacks.errors import EnvError, describe_error

NOT_REPEATED = ("RecordVideo", "HumanRendering")


def maker_like(env: Any) -> EnvSpec | Callable[..., Any]:
    """Finds out how to make further environments like one that is given.

    Args:
        env: A single, a vector or a parallel environment. It is read, and neither stepped, reset nor closed.

    Returns:
        Its spec, where that tells all of its wrappers; else something that makes copies.

    Raises:
        EnvError: If it can be copied in neither way.
    """
    if isinstance(env, gym.Env):
        spec = env.spec
        if spec is not None and all(wrapper.kwargs is not None for wrapper in spec.additional_wrappers):
            return _quiet(spec)
    try:
        return Copies(_renewed(env, None))
    except Exception as error:
        raise EnvError(
            f"evaluation.env is the environment {env!r}, which can neither be made again from its spec nor be copied: "
            f"{describe_error(error)} Give a function that makes it."
        ) from error


def _quiet(spec: EnvSpec) -> EnvSpec:
    """Leaves out what opens windows or writes files."""
    spec = copy.deepcopy(spec)
    spec.kwargs.pop("render_mode", None)
    spec.additional_wrappers = tuple(
        wrapper for wrapper in spec.additional_wrappers if wrapper.entry_point.rpartition(":")[2] not in NOT_REPEATED
    )
    return spec


@dataclass(frozen=True)
class Copies:
    """Makes copies of an environment.

    Args:
        original: Never used itself, and a copy already of what a user gave.
    """

    original: Any

    def __call__(self, render_mode: str | None = None) -> Any:
        """Makes one copy."""
        return _renewed(self.original, render_mode)


def layers(env: Any) -> Iterator[Any]:
    """An environment's wrappers from the outermost inwards, and the environment inside them last."""
    yield env
    while isinstance(env, gym.Wrapper | VectorWrapper):
        env = env.env
        yield env


def _renewed(env: Any, render_mode: str | None) -> Any:
    """Makes the innermost environment again and copies the wrappers around it."""
    *wrappers, base = layers(env)
    renewed = _renewed_base(base, render_mode)
    # Whatever a wrapper holds of the environments inside it becomes their renewed ones.
    memo = {id(base): renewed}
    for wrapper in reversed(wrappers):
        if type(wrapper).__name__ not in NOT_REPEATED:
            renewed = copy.deepcopy(wrapper, memo)
        memo[id(wrapper)] = renewed
    return renewed


def _renewed_base(base: Any, render_mode: str | None) -> Any:
    mode: dict[str, Any] = {"render_mode": render_mode}
    if isinstance(base, VectorEnv):
        return _renewed_vector(base, mode)
    if isinstance(base, gym.Env) and base.spec is not None:
        spec = _quiet(base.spec)
        spec.additional_wrappers = ()
        return gym.make(spec, disable_env_checker=True, **mode).unwrapped
    renewed = copy.deepcopy(base)
    if hasattr(renewed, "render_mode"):
        renewed.render_mode = render_mode
    return renewed


def _renewed_vector(base: Any, mode: dict[str, Any]) -> Any:
    if base.spec is not None and "vectorization_mode" in base.spec.kwargs:
        spec = copy.deepcopy(base.spec)
        spec.kwargs.pop("render_mode", None)
        return gym.make_vec(spec, **mode)
    if not hasattr(base, "env_fns"):
        renewed = copy.deepcopy(base)
        renewed.render_mode = mode["render_mode"]
        return renewed
    told = ("copy", "observation_mode", "autoreset_mode")
    return type(base)(base.env_fns, **{name: getattr(base, name) for name in told if hasattr(base, name)})
