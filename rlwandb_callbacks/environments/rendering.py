"""Frames of environments as RGB pixels, and settings with which simulators render without a display."""

from __future__ import annotations

import ctypes.util
import os
import sys
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.errors import RenderError, describe_error

WITHOUT_VIDEOS = "Scalars are logged without videos; video_logger=False turns this warning off."
HEADLESS_REMEDY = (
    "On a machine without a display MuJoCo needs libEGL or libOSMesa (apt-get install libegl1, or apt-get install "
    "libosmesa6); MUJOCO_GL=egl or MUJOCO_GL=osmesa, set before Python starts, selects one. pygame environments need "
    f"SDL_VIDEODRIVER=dummy. {WITHOUT_VIDEOS}"
)
NO_FRAME = (
    "a frame of shape [H, W, 3] is needed. A function that makes the environment must take render_mode and pass it on."
)
WRONG_SHAPE = (
    "the shape must be [H, W, 3] (RGB), [H, W, 4] (RGBA), [H, W] or [H, W, 1] (gray). Make render() return one of "
    "these, with the colors on the last axis."
)


def render(env: gym.Env[Any, Any], *, rendered_before: bool = False) -> Pixels:
    """Renders the current state of an environment with ``render_mode="rgb_array"``, to ``[H, W, 3]``, contiguous.

    Args:
        env: The environment.
        rendered_before: Whether it has rendered a frame; a missing display is not the cause of an error then.

    Raises:
        RenderError: If rendering fails or returns no frame; the message has the remedy.
    """
    return _to_pixels(_rendered(env, rendered_before=rendered_before), env)


def render_each(envs: VectorEnv[Any, Any, Any], *, rendered_before: bool = False) -> list[Pixels]:
    """Renders the current state of each environment of a vector, like :func:`render`."""
    frames = _rendered(envs, rendered_before=rendered_before)
    if not isinstance(frames, list | tuple | np.ndarray) or len(frames) != envs.num_envs:
        raise RenderError(
            f"{envs} was made with render_mode={envs.render_mode!r} and its render() returned {_describe(frames)}; it "
            f"must return one frame for each of its {envs.num_envs} environments."
        )
    return [_to_pixels(frame, envs) for frame in frames]


def _rendered(env: Any, *, rendered_before: bool) -> Any:
    try:
        return env.render()
    except Exception as error:
        raise rendering_error(f"{env} cannot render", error, rendered_before=rendered_before) from error


def rendering_error(what: str, cause: Exception, *, rendered_before: bool) -> RenderError:
    """Returns an error that begins with ``what``, for an environment that failed to render; see :func:`render`."""
    return RenderError(f"{what}: {describe_error(cause)} {WITHOUT_VIDEOS if rendered_before else HEADLESS_REMEDY}")


def _describe(frame: Any) -> str:
    return "None" if frame is None else f"{type(frame).__name__} of shape {np.shape(frame)}"


def _to_pixels(frame: Any, env: Any) -> Pixels:
    """Converts RGB, RGBA or gray pixels, or the last entry of a list of these, to RGB."""
    if isinstance(frame, list) and frame:
        frame = frame[-1]
    pixels = np.asarray(frame) if frame is not None else np.empty(0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        raise RenderError(
            f"{env} was made with render_mode={env.render_mode!r} and its render() returned {_describe(frame)}; "
            f"{NO_FRAME if frame is None else WRONG_SHAPE}"
        )
    colors = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]
    return np.ascontiguousarray(colors, dtype=np.uint8)


def has_display() -> bool:
    """Returns whether a display is available; True on all platforms but Linux."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def set_sdl_driver() -> None:
    """Sets SDL's dummy video driver, which pygame environments need, if there is no display."""
    if not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def set_mujoco_backend() -> None:
    """Sets ``MUJOCO_GL`` if there is no display and the user has not set it: EGL if its library loads, else OSMesa.

    MuJoCo reads the variable when it is imported or first renders. If neither library loads, the variable is not set,
    and rendering fails with MuJoCo's message.
    """
    if has_display() or "MUJOCO_GL" in os.environ:
        return
    platform = os.environ.get("PYOPENGL_PLATFORM", "").lower()
    for backend, library in {"egl": "EGL", "osmesa": "OSMesa"}.items():
        # MuJoCo's backends render through PyOpenGL, which supports one platform per process.
        if platform in ("", backend) and can_load(library):
            os.environ["MUJOCO_GL"] = backend
            return


def can_load(library: str) -> bool:
    """Returns whether a shared library exists and loads."""
    name = ctypes.util.find_library(library)
    if name is None:
        return False
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
