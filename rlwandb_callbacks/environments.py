"""Making, describing and rendering Gymnasium environments."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlwandb_callbacks.core.actions import (
    ActionSpec,
    BinaryActions,
    ContinuousActions,
    DiscreteActions,
    GroupedActions,
    OtherActions,
)
from rlwandb_callbacks.core.canvas import Pixels
from rlwandb_callbacks.errors import EnvError, RenderError, nearest

Env: TypeAlias = gym.Env[Any, Any]
DEFAULT_FPS = 30.0
HEADLESS_REMEDY = (
    "On a machine without a display MuJoCo needs MUJOCO_GL=egl or MUJOCO_GL=osmesa (apt install libegl1 "
    "or libosmesa6) to "
    "be set before Python starts; pygame environments need SDL_VIDEODRIVER=dummy. Numbers are logged all the same; "
    "video_logger=False ends this warning."
)


@dataclass(frozen=True)
class EnvMaker:
    """Makes fresh environments, with pictures or without.

    Args:
        make: A Gymnasium id, a Gymnasium ``EnvSpec``, or a function that makes an environment.
        kwargs: Given to ``gymnasium.make`` or to the function.
    """

    make: str | gym.envs.registration.EnvSpec | Callable[..., Env]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *, render: bool = False) -> Env:
        """Makes one environment.

        Args:
            render: With ``render_mode="rgb_array"``, where the function takes that.

        Raises:
            EnvError: If it cannot be made.
        """
        mode = {"render_mode": "rgb_array"} if render else {}
        if render:
            quiet_sdl()
        try:
            if isinstance(self.make, str | gym.envs.registration.EnvSpec):
                return gym.make(self.make, disable_env_checker=True, **{**self.kwargs, **mode})
            accepted = mode if _accepts(self.make, "render_mode") else {}
            env = self.make(**{**self.kwargs, **accepted})
        except Exception as error:
            raise EnvError(self._complaint(error)) from error
        if not isinstance(env, gym.Env):
            raise EnvError(
                f"evaluation.env: {self.make!r} gave {env!r} of type {type(env).__name__}; it must give a "
                "gymnasium.Env."
            )
        return env

    def __getstate__(self) -> dict[str, Any]:
        """Refuses to take a whole module along, with its weights and its device.

        Raises:
            TypeError: If the function is a method of a module.
        """
        if hasattr(getattr(self.make, "__self__", None), "named_parameters"):
            name = getattr(self.make, "__qualname__", self.make)
            raise TypeError(f"{name} is a method of the module, which stays in the training process")
        return dict(vars(self))

    def portable(self) -> EnvMaker:
        """One that also works in another process, which knows nothing of ids that were registered in this one."""
        if not isinstance(self.make, str):
            return self
        spec = copy.deepcopy(gym.spec(self.make))
        if isinstance(spec.entry_point, str) and spec.entry_point.startswith("__main__:"):
            spec.entry_point = import_object(spec.entry_point)
        return EnvMaker(spec, self.kwargs)

    def _complaint(self, error: Exception) -> str:
        known = nearest(self.make, gym.registry) if isinstance(self.make, str) and self.make not in gym.registry else ""
        return (
            f"evaluation.env {self.make!r} with env_kwargs {dict(self.kwargs)!r} cannot be made: "
            f"{type(error).__name__}: {error}.{known} Allowed are the id of a registered Gymnasium environment, a "
            "function "
            "that makes one, and the import path of such a function ('package.module:function')."
        )


def env_maker(env: Any, kwargs: Mapping[str, Any]) -> EnvMaker:
    """Finds out what ``evaluation.env`` stands for.

    Args:
        env: Id, import path, function, or an environment with a ``spec``, which is made again and never used itself.
        kwargs: ``evaluation.env_kwargs``.

    Raises:
        EnvError: If an import path leads nowhere, or an environment has no ``spec``.

    Example:
        >>> env_maker("CartPole-v1", {})().observation_space.shape
        (4,)
    """
    if isinstance(env, gym.Env):
        if env.spec is None:
            raise EnvError(
                f"evaluation.env is the environment {env!r}, which has no spec to make another one from. Give a "
                "function "
                "that makes it."
            )
        return EnvMaker(env.spec, kwargs)
    if isinstance(env, str) and env not in gym.registry:
        return EnvMaker(_imported(env) or env, kwargs)
    return EnvMaker(env, kwargs)


def import_object(path: str) -> Any:
    """Imports ``package.module:name`` or ``package.module.name``.

    Raises:
        ImportError: If there is no such module.
        AttributeError: If the module has no such name.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _imported(path: str) -> Callable[..., Env] | None:
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


def describe_actions(env: Env) -> ActionSpec:
    """Reads names or bounds of an environment's actions.

    Example:
        >>> describe_actions(gym.make("CartPole-v1"))
        DiscreteActions(names=('0', '1'), first=0)
    """
    space = env.action_space
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    named: Any = list(meanings()) if callable(meanings) else []
    if isinstance(space, spaces.Discrete):
        return _choice(int(space.n), int(space.start), named)
    if isinstance(space, spaces.Box):
        return ContinuousActions(space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64))
    if isinstance(space, spaces.MultiDiscrete):
        sizes, firsts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
        names = named if len(named) == len(sizes) else [[]] * len(sizes)
        return GroupedActions(tuple(map(_choice, sizes, firsts, names)))
    if isinstance(space, spaces.MultiBinary):
        count = math.prod(space.shape)
        return BinaryActions(tuple(map(str, named)) if len(named) == count else tuple(f"a[{i}]" for i in range(count)))
    return OtherActions()


def _choice(count: int, first: int, named: Any) -> DiscreteActions:
    """Names the options of a finite choice as the environment does, where it names all of them, else by number."""
    names = () if isinstance(named, str) else tuple(map(str, named))
    return DiscreteActions(names if len(names) == count else tuple(map(str, range(first, first + count))), first)


def quiet_sdl() -> None:
    """Tells SDL, on which pygame environments draw, not to look for a display where there is none, and complain."""
    if sys.platform == "linux" and not any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def frames_per_second(env: Env) -> float:
    """Reads ``render_fps`` of the environment's metadata; 30 where it says nothing usable."""
    fps = env.metadata.get("render_fps")
    return float(fps) if isinstance(fps, int | float) and fps > 0 else DEFAULT_FPS


def render(env: Env) -> Pixels:
    """Takes a picture of the state that an environment is in.

    Returns:
        Shape ``[H, W, 3]``, ``uint8``, contiguous.

    Raises:
        RenderError: If there is none; the message says what to do.
    """
    try:
        frame: Any = env.render()
    except Exception as error:
        raise RenderError(f"{env} cannot render: {type(error).__name__}: {error}. {HEADLESS_REMEDY}") from error
    if isinstance(frame, list) and frame:
        frame = frame[-1]
    pixels = np.asarray(frame) if frame is not None else np.empty(0)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.ndim != 3 or pixels.shape[-1] not in (3, 4) or 0 in pixels.shape:
        answer = "nothing" if frame is None else f"{type(frame).__name__} of shape {pixels.shape}"
        raise RenderError(
            f"{env} was made with render_mode={env.render_mode!r} and its render() gave {answer}; a picture of shape "
            "[H, W, 3] is needed. A function that makes the environment must take render_mode and pass it on."
        )
    return np.ascontiguousarray(pixels[..., :3], dtype=np.uint8)
