"""Pictures of the states that environments are in."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.environments.headless import drawing_error
from rlwandb_callbacks.errors import RenderError

NO_PICTURE = (
    "a picture of shape [H, W, 3] is needed. A function that makes the environment must take render_mode and pass it "
    "on."
)
WRONG_SHAPE = (
    "allowed is a picture of shape [H, W, 3] (RGB), [H, W, 4] (RGBA), [H, W] or [H, W, 1] (gray). Let render() give "
    "one of these, its colors on the last axis."
)


def render(env: gym.Env[Any, Any], *, has_drawn: bool = False) -> Pixels:
    """Takes a picture of the state that an environment is in.

    Args:
        env: That renders.
        has_drawn: It gave a picture before; where it fails now, a missing display is not why.

    Returns:
        Shape ``[H, W, 3]``, ``uint8``, contiguous.

    Raises:
        RenderError: If there is none; the message says what to do.
    """
    return as_pixels(_rendered(env, has_drawn=has_drawn), env)


def render_each(envs: VectorEnv[Any, Any, Any], *, has_drawn: bool = False) -> list[Pixels]:
    """Takes a picture of each environment of a vector.

    Args:
        envs: That render.
        has_drawn: They gave pictures before; where they fail now, a missing display is not why.

    Raises:
        RenderError: If there is not one picture for each; the message says what to do.
    """
    frames = _rendered(envs, has_drawn=has_drawn)
    if not isinstance(frames, list | tuple | np.ndarray) or len(frames) != envs.num_envs:
        raise RenderError(
            f"{envs} was made with render_mode={envs.render_mode!r} and its render() gave {_in_words(frames)}; one "
            f"picture for each of its {envs.num_envs} environments is needed."
        )
    return [as_pixels(frame, envs) for frame in frames]


def _rendered(env: Any, *, has_drawn: bool) -> Any:
    try:
        return env.render()
    except Exception as error:
        raise drawing_error(f"{env} cannot render", error, has_drawn=has_drawn) from error


def _in_words(frame: Any) -> str:
    return "nothing" if frame is None else f"{type(frame).__name__} of shape {np.shape(frame)}"


def as_pixels(frame: Any, env: Any) -> Pixels:
    """Makes a picture of what an environment's ``render`` gave: RGB, RGBA or gray, alone or last in a list.

    Args:
        frame: Shape ``[H, W, 3]``, ``[H, W, 4]``, ``[H, W, 1]`` or ``[H, W]``.
        env: Named in the message.

    Raises:
        RenderError: If it is no picture.
    """
    if isinstance(frame, list) and frame:
        frame = frame[-1]
    pixels = np.asarray(frame) if frame is not None else np.empty(0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        raise RenderError(
            f"{env} was made with render_mode={env.render_mode!r} and its render() gave {_in_words(frame)}; "
            f"{NO_PICTURE if frame is None else WRONG_SHAPE}"
        )
    colors = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]
    return np.ascontiguousarray(colors, dtype=np.uint8)
