"""Making and describing environments."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from rlwandb_callbacks.core.action_spec import (
    ActionSpec,
    BinaryActions,
    ContinuousActions,
    DiscreteActions,
    GroupedActions,
    OtherActions,
)
from rlwandb_callbacks.core.import_string import import_object
from rlwandb_callbacks.core.values import DEFAULT_FPS
from rlwandb_callbacks.environments import packages
from rlwandb_callbacks.environments.copies import maker_like
from rlwandb_callbacks.environments.headless import HEADLESS_REMEDY, choose_mujoco_backend, quiet_sdl
from rlwandb_callbacks.environments.normalization import Statistics, normalizers, with_raw_rewards, with_statistics
from rlwandb_callbacks.environments.pettingzoo import TeamEnv, is_parallel
from rlwandb_callbacks.errors import EnvError, describe_error, nearest

Env: TypeAlias = gym.Env[Any, Any]
OF_MODULE = "self."


@dataclass(frozen=True)
class EnvMaker:
    """Makes fresh environments, with pictures or without.

    It pickles where ``make`` does; an id then takes its spec along, as another process may not know it.

    Args:
        make: A Gymnasium id, a Gymnasium ``EnvSpec``, or a function that makes an environment: a single one, a vector,
            or a parallel one of PettingZoo.
        kwargs: Given to ``gymnasium.make`` or to the function.
        statistics: By which observations are normalized, frozen, where training normalizes them.
    """

    make: str | EnvSpec | Callable[..., Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    statistics: Statistics | None = None

    def __call__(self, *, render: bool = False) -> Env:
        """Makes one single environment; where ``make`` makes a vector, the first one in it.

        Args:
            render: With ``render_mode="rgb_array"``, where the function takes that.

        Raises:
            EnvError: If it cannot be made.
        """
        made = self.open(render=render)
        if not isinstance(made, VectorEnv):
            return made
        single = _first_of(made, render=render)
        is_normalised_outside = next(normalizers(made), None) is not None and next(normalizers(single), None) is None
        if self.statistics is None or not is_normalised_outside:
            return single
        return with_statistics(single, self.statistics)  # type: ignore[no-any-return]  # a single one in and out

    def open(self, *, render: bool = False) -> Env | VectorEnv[Any, Any, Any]:
        """Makes what ``make`` makes: a single environment or a vector.

        Raises:
            EnvError: If it cannot be made.
        """
        env = self._made({"render_mode": "rgb_array"} if render else {})
        if is_parallel(env):
            env = TeamEnv(env)
        if not isinstance(env, gym.Env | VectorEnv):
            raise EnvError(
                f"evaluation.env: {self.make!r} gave {env!r} of type {type(env).__name__}; it must give a "
                "gymnasium.Env, a gymnasium.vector.VectorEnv or a pettingzoo.ParallelEnv."
            )
        if _draws_with_mujoco(env):
            choose_mujoco_backend()
        env = with_raw_rewards(env)
        return env if self.statistics is None else with_statistics(env, self.statistics)  # type: ignore[no-any-return]  # any of the two in, the same out

    def _made(self, mode: Mapping[str, str]) -> Any:
        if mode:
            quiet_sdl()
        try:
            if callable(self.make):
                accepted = mode if _accepts(self.make, "render_mode") else {}
                return self.make(**{**self.kwargs, **accepted})
            if isinstance(self.make, str):
                packages.register(self.make)
            spec = gym.registry.get(self.make) if isinstance(self.make, str) else self.make
            if spec is not None and packages.is_mujoco(spec):
                choose_mujoco_backend()
            return gym.make(self.make, disable_env_checker=True, **{**self.kwargs, **mode})
        except Exception as error:
            raise EnvError(self._complaint(error, makes_pictures=bool(mode))) from error

    def _complaint(self, error: Exception, *, makes_pictures: bool) -> str:
        what = f"evaluation.env {self.make!r} with env_kwargs {dict(self.kwargs)!r} cannot be made"
        if makes_pictures:  # it was made without them before
            return f"{what} with render_mode='rgb_array': {describe_error(error)} {HEADLESS_REMEDY}"
        is_unknown = isinstance(self.make, str) and self.make not in gym.registry
        known = packages.advice(str(self.make)) or nearest(str(self.make), gym.registry) if is_unknown else ""
        return (
            f"{what}: {describe_error(error)}{known} Allowed are the id of a registered Gymnasium environment, a "
            "function that makes one, the import path of such a function ('package.module:function'), and an attribute "
            "of the module that holds one of these ('self.make_env')."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles an id as the spec that it stands for here.

        Raises:
            TypeError: If the function is a method of a module, which would take along its weights and its device.
        """
        if hasattr(getattr(self.make, "__self__", None), "state_dict"):
            name = getattr(self.make, "__qualname__", self.make)
            raise TypeError(f"{name} is a method of the module, which stays in the training process")
        make = gym.registry.get(self.make, self.make) if isinstance(self.make, str) else self.make
        return EnvMaker, (_importable_elsewhere(make), self.kwargs, self.statistics)


def _importable_elsewhere(make: Any) -> Any:
    """A spec whose environment is defined in the program itself takes the class along, instead of its name."""
    if isinstance(make, EnvSpec) and isinstance(make.entry_point, str) and make.entry_point.startswith("__main__:"):
        make = copy.deepcopy(make)
        make.entry_point = import_object(make.entry_point)
    return make


def has_singles(vector: VectorEnv[Any, Any, Any]) -> bool:
    """Whether a vector is made of single environments, of which one more can be made."""
    return any(isinstance(getattr(vector.unwrapped, name, None), list | tuple) for name in ("envs", "env_fns"))


def _first_of(vector: VectorEnv[Any, Any, Any], *, render: bool) -> Env:
    """Takes a vector's first environment out, and closes the others; one without pictures is made again with them."""
    inner: Any = vector.unwrapped
    if not has_singles(vector):
        vector.close()
        raise EnvError(f"evaluation.env gives {vector}, which holds no single environments to take one from.")
    singles = list(getattr(inner, "envs", ()))
    if not singles:
        singles = [inner.env_fns[0]()]
        vector.close()
    single = singles[0]
    if render and single.render_mode is None:
        single = EnvMaker(maker_like(single))(render=True)
    for unused in (each for each in singles if each is not single):
        unused.close()
    return AsInVector(single)


class AsInVector(gym.ObservationWrapper[Any, Any, Any]):
    """Gives observations with the type and shape that they have in a batch."""

    def observation(self, observation: Any) -> Any:
        """Puts one into a batch and takes it out again."""
        space = self.observation_space
        empty: Any = create_empty_array(space, n=1)
        batch: Any = concatenate(space, [observation], empty)
        return next(iter(iterate(batch_space(space, 1), batch)))


def _draws_with_mujoco(env: Any) -> bool:
    return hasattr(env.unwrapped, "mujoco_renderer") or any(
        "mujoco" in cls.__module__ for cls in type(env.unwrapped).__mro__
    )


def env_maker(env: Any, kwargs: Mapping[str, Any], module: Any = None) -> EnvMaker:
    """Finds out what ``evaluation.env`` stands for.

    Args:
        env: Id, import path, function, an environment, which is made again or copied and never used itself, or
            ``self.<attribute>`` for an attribute of the module that holds one of these.
        kwargs: ``evaluation.env_kwargs``.
        module: The LightningModule.

    Raises:
        EnvError: If the module has no such attribute, or an environment can be neither made again nor copied.

    Example:
        >>> env_maker("CartPole-v1", {})().observation_space.shape
        (4,)
    """
    env = attribute_of(module, env)
    if isinstance(env, str):
        packages.register(env)
        return EnvMaker(env if env in gym.registry else _imported(env) or env, kwargs)
    if isinstance(env, gym.Env | VectorEnv) or (is_parallel(env) and not isinstance(env, type)):
        if kwargs:
            raise EnvError(
                f"evaluation.env is the environment {env!r}, and evaluation.env_kwargs is {dict(kwargs)!r}: an "
                "environment has its arguments already. Leave env_kwargs out, or give a function that takes them."
            )
        return EnvMaker(maker_like(env))
    if not callable(env) and not isinstance(env, EnvSpec):
        raise EnvError(f"evaluation.env is {env!r} of type {type(env).__name__}, which makes no environment.")
    return EnvMaker(env, kwargs)


def attribute_of(module: Any, env: Any) -> Any:
    """What ``self.<path>`` means for a module; anything else as it is.

    Raises:
        EnvError: If the module has no such attribute, or it is None.

    Example:
        >>> from types import SimpleNamespace
        >>> attribute_of(SimpleNamespace(hparams=SimpleNamespace(env_id="Taxi-v3")), "self.hparams.env_id")
        'Taxi-v3'
    """
    if not isinstance(env, str) or not env.startswith(OF_MODULE):
        return env
    found: Any = module
    for part in env.removeprefix(OF_MODULE).split("."):
        holder = found
        found = holder.get(part) if isinstance(holder, Mapping) else getattr(holder, part, None)
        if found is None:
            names = [*vars(holder), *dir(type(holder))] if not isinstance(holder, dict) else list(holder)
            raise EnvError(
                f"evaluation.env is '{env}', and {type(holder).__name__} has no '{part}', or it is None."
                f"{nearest(part, map(str, names))} Allowed is an attribute that holds an id, an environment, or "
                "something that makes one."
            )
    return found


def _imported(path: str) -> Callable[..., Any] | None:
    if ":" not in path and "." not in path:
        return None
    try:
        found = import_object(path)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if callable(found) else None


def _accepts(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def describe_actions(env: Env | VectorEnv[Any, Any, Any]) -> ActionSpec:
    """Reads names or bounds of an environment's actions; of one environment, where it is a vector.

    Example:
        >>> describe_actions(gym.make("CartPole-v1"))
        DiscreteActions(names=('0', '1'), first=0)
    """
    space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    named: Any = list(meanings()) if callable(meanings) else []
    if isinstance(space, spaces.Discrete):
        return _choice(int(space.n), int(space.start), named)
    dimensions = env.unwrapped.action_names if isinstance(env.unwrapped, TeamEnv) else ()
    if isinstance(space, spaces.Box):
        low, high = (bound.ravel().astype(np.float64) for bound in (space.low, space.high))
        return ContinuousActions(low, high, dimensions if len(dimensions) == low.size else ())
    if isinstance(space, spaces.MultiDiscrete):
        sizes, firsts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
        names = named if len(named) == len(sizes) else [[]] * len(sizes)
        titles = dimensions if len(dimensions) == len(sizes) else ()
        return GroupedActions(tuple(map(_choice, sizes, firsts, names)), titles)
    if isinstance(space, spaces.MultiBinary):
        count = math.prod(space.shape)
        return BinaryActions(tuple(map(str, named)) if len(named) == count else tuple(f"a[{i}]" for i in range(count)))
    return OtherActions()


def _choice(count: int, first: int, named: Any) -> DiscreteActions:
    """Names the options of a finite choice as the environment does, where it names all of them, else by number."""
    names = () if isinstance(named, str) else tuple(map(str, named))
    return DiscreteActions(names if len(names) == count else tuple(map(str, range(first, first + count))), first)


def frames_per_second(env: Env | VectorEnv[Any, Any, Any]) -> float:
    """Reads ``render_fps`` of the environment's metadata; 30 where it says nothing usable."""
    fps = env.metadata.get("render_fps")
    return float(fps) if isinstance(fps, int | float) and fps > 0 else DEFAULT_FPS
