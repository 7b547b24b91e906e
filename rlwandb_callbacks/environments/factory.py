"""Makes the environment that ``evaluation.env`` names."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from rlwandb_callbacks.core.import_string import find_object, import_object
from rlwandb_callbacks.environments import packages
from rlwandb_callbacks.environments.copies import spec_or_copier
from rlwandb_callbacks.environments.normalization import Statistics, normalizers, with_raw_rewards, with_statistics
from rlwandb_callbacks.environments.pettingzoo import MultiAgentEnv, is_parallel
from rlwandb_callbacks.environments.rendering import HEADLESS_REMEDY, set_mujoco_backend, set_sdl_driver
from rlwandb_callbacks.environments.wrappers import has_sub_envs
from rlwandb_callbacks.errors import EnvError, describe_error, nearest

Env: TypeAlias = gym.Env[Any, Any]
MODULE_PREFIX = "self."


@dataclass(frozen=True)
class EnvFactory:
    """Makes new environments, rendering or not.

    It can be pickled if ``make`` can.

    Args:
        make: A Gymnasium id, a Gymnasium ``EnvSpec``, or a function that makes an environment: a single one, a vector,
            or a parallel one of PettingZoo.
        kwargs: Arguments of ``gymnasium.make`` or of the function.
        statistics: Observation statistics of training, which environments use frozen; None to leave observations.
    """

    make: str | EnvSpec | Callable[..., Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    statistics: Statistics | None = None

    def __call__(self, *, render: bool = False) -> Env:
        """Makes a single environment like :meth:`open`; if ``make`` makes a vector, its first sub-environment."""
        env = self.open(render=render)
        if not isinstance(env, VectorEnv):
            return env
        single = _first_sub_env(env, render=render)
        is_normalized_outside = next(normalizers(env), None) is not None and next(normalizers(single), None) is None
        if self.statistics is None or not is_normalized_outside:
            return single
        return with_statistics(single, self.statistics)  # type: ignore[no-any-return]  # returns what it is given

    def open(self, *, render: bool = False) -> Env | VectorEnv[Any, Any, Any]:
        """Makes what ``make`` makes: a single environment or a vector.

        Args:
            render: Whether to pass ``render_mode="rgb_array"``; functions without this parameter do not receive it.

        Raises:
            EnvError: If it cannot be made.
        """
        env = self._make({"render_mode": "rgb_array"} if render else {})
        if is_parallel(env):
            env = MultiAgentEnv(env)
        if not isinstance(env, gym.Env | VectorEnv):
            raise EnvError(
                f"evaluation.env: {self.make!r} returned {env!r} of type {type(env).__name__}; it must return a "
                "gymnasium.Env, a gymnasium.vector.VectorEnv or a pettingzoo.ParallelEnv."
            )
        if _uses_mujoco(env):
            set_mujoco_backend()
        env = with_raw_rewards(env)
        return env if self.statistics is None else with_statistics(env, self.statistics)  # type: ignore[no-any-return]  # returns what it is given

    def _make(self, mode: Mapping[str, str]) -> Any:
        if mode:
            set_sdl_driver()
        try:
            if callable(self.make):
                accepted = mode if _has_parameter(self.make, "render_mode") else {}
                return self.make(**{**self.kwargs, **accepted})
            if isinstance(self.make, str):
                packages.register(self.make)
            spec = gym.registry.get(self.make) if isinstance(self.make, str) else self.make
            if spec is not None and packages.uses_mujoco(spec):
                set_mujoco_backend()
            return gym.make(self.make, disable_env_checker=True, **{**self.kwargs, **mode})
        except Exception as error:
            raise EnvError(self._describe_failure(error, renders=bool(mode))) from error

    def _describe_failure(self, error: Exception, *, renders: bool) -> str:
        what = f"evaluation.env {self.make!r} with env_kwargs {dict(self.kwargs)!r} cannot be made"
        if renders:  # without rendering it was made before
            return f"{what} with render_mode='rgb_array': {describe_error(error)} {HEADLESS_REMEDY}"
        hint = ""
        if isinstance(self.make, str) and self.make not in gym.registry:
            hint = packages.install_hint(self.make) or nearest(self.make, gym.registry)
        return (
            f"{what}: {describe_error(error)}{hint} Allowed are the id of a registered Gymnasium environment, a "
            "function that makes one, the import path of such a function ('package.module:function'), and an attribute "
            "of the module with one of these ('self.make_env')."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles an id as its spec, as it may not be registered in another process.

        Raises:
            TypeError: If the function is a method of a module, whose weights and device would be pickled with it.
        """
        if hasattr(getattr(self.make, "__self__", None), "state_dict"):
            name = getattr(self.make, "__qualname__", self.make)
            raise TypeError(f"{name} is a method of the module, which stays in the training process")
        make: Any = gym.registry.get(self.make, self.make) if isinstance(self.make, str) else self.make
        entry_point = make.entry_point if isinstance(make, EnvSpec) else None
        if isinstance(entry_point, str) and entry_point.startswith("__main__:"):  # another module in other processes
            make = copy.deepcopy(make)
            make.entry_point = import_object(entry_point)
        return EnvFactory, (make, self.kwargs, self.statistics)


def _first_sub_env(vector: VectorEnv[Any, Any, Any], *, render: bool) -> Env:
    """Returns the first sub-environment of a vector, made again if it must render, and closes the others."""
    inner: Any = vector.unwrapped
    if not has_sub_envs(vector):
        vector.close()
        raise EnvError(f"evaluation.env is {vector}, which has no sub-environments to render one by one.")
    singles = list(getattr(inner, "envs", ()))
    if not singles:
        singles = [inner.env_fns[0]()]
        vector.close()
    single = singles[0]
    if render and single.render_mode is None:
        single = EnvFactory(spec_or_copier(single))(render=True)
    for unused in (each for each in singles if each is not single):
        unused.close()
    return _VectorObservation(single)


class _VectorObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Wrapper that gives observations the dtype and shape that they have in a batch."""

    def observation(self, observation: Any) -> Any:
        space = self.observation_space
        empty: Any = create_empty_array(space, n=1)
        batch: Any = concatenate(space, [observation], empty)
        return next(iter(iterate(batch_space(space, 1), batch)))


def _uses_mujoco(env: Any) -> bool:
    return hasattr(env.unwrapped, "mujoco_renderer") or any(
        "mujoco" in cls.__module__ for cls in type(env.unwrapped).__mro__
    )


def env_factory(env: Any, kwargs: Mapping[str, Any], module: Any = None) -> EnvFactory:
    """Returns a factory of the environment that ``evaluation.env`` names.

    Args:
        env: Id, import path, function, an environment, which is made again or copied and never used itself, or
            ``self.<attribute>`` for an attribute of the module with one of these.
        kwargs: ``evaluation.env_kwargs``.
        module: The LightningModule.

    Raises:
        EnvError: If the module has no such attribute, or an environment can neither be made again nor copied.
    """
    env = resolve_attribute(module, env)
    if isinstance(env, str):
        packages.register(env)
        function = None if env in gym.registry else find_object(env)
        return EnvFactory(function if callable(function) else env, kwargs)
    if isinstance(env, gym.Env | VectorEnv) or (is_parallel(env) and not isinstance(env, type)):
        if kwargs:
            raise EnvError(
                f"evaluation.env is the environment {env!r}, which has its arguments already, but "
                f"evaluation.env_kwargs is {dict(kwargs)!r}. Remove env_kwargs, or set evaluation.env to a function "
                "that takes them."
            )
        return EnvFactory(spec_or_copier(env))
    if not callable(env) and not isinstance(env, EnvSpec):
        raise EnvError(
            f"evaluation.env is {env!r} of type {type(env).__name__}; it must be an id, an environment, or a function "
            "that makes one."
        )
    return EnvFactory(env, kwargs)


def resolve_attribute(module: Any, env: Any) -> Any:
    """Returns the attribute of the module that a path as ``self.hparams.env_id`` names; any other value unchanged.

    Raises:
        EnvError: If the module has no such attribute, or it is None.
    """
    if not isinstance(env, str) or not env.startswith(MODULE_PREFIX):
        return env
    found: Any = module
    for part in env.removeprefix(MODULE_PREFIX).split("."):
        holder = found
        found = holder.get(part) if isinstance(holder, Mapping) else getattr(holder, part, None)
        if found is None:
            names = list(holder) if isinstance(holder, Mapping) else [*vars(holder), *dir(type(holder))]
            raise EnvError(
                f"evaluation.env is '{env}', but {type(holder).__name__} has no '{part}', or it is None."
                f"{nearest(part, map(str, names))} It must name an attribute with an id, an environment, or a function "
                "that makes one."
            )
    return found


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
