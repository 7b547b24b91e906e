"""Frames of environments as RGB."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.core.values import RawFrame
from rlwandb_callbacks.environments.display_remedies import display_remedy
from rlwandb_callbacks.environments.names import env_name
from rlwandb_callbacks.errors import RenderError, describe_error

ENVS_TO_DRAW = "env_ids"
WITHOUT_VIDEOS = "Scalars are logged without videos; video_logger=False turns this warning off."
NO_FRAME = (
    "a frame of shape [H, W, 3] is needed. A function that makes the environment must take render_mode and pass it on."
)
WRONG_SHAPE = (
    "the shape must be [H, W, 3] (RGB), [H, W, 4] (RGBA), [H, W] or [H, W, 1] (gray). Make render() return one of "
    "these, with the colors on the last axis."
)


def render(env: gym.Env[Any, Any]) -> RawFrame:
    """Renders the current state of an environment with ``render_mode="rgb_array"``, to ``[H, W, 3]`` of any dtype.

    Raises:
        RenderError: If rendering fails or returns no frame; the message has the remedy, if the cause is known.
    """
    return _to_rgb(_rendered(env), env)


def render_each(envs: VectorEnv[Any, Any, Any]) -> list[RawFrame]:
    """Renders the current state of each environment of a vector, like :func:`render`."""
    frames = _rendered_one_by_one(envs) if _renders_one_by_one(envs) else _rendered(envs)
    if not isinstance(frames, list | tuple | np.ndarray) or len(frames) != envs.num_envs:
        raise RenderError(
            f"{env_name(envs)} was made with render_mode={envs.render_mode!r} and its render() returned "
            f"{_describe(frames)}; it must return one frame for each of its {envs.num_envs} environments."
        )
    return [_to_rgb(frame, envs) for frame in frames]


def _rendered(env: Any) -> Any:
    try:
        return env.render()
    except Exception as error:
        raise rendering_error(f"{env_name(env)} cannot render", error) from error


def _renders_one_by_one(envs: Any) -> bool:
    """Returns whether ``render`` takes the environments to draw; that of EnvPool draws only the first by default."""
    try:
        return ENVS_TO_DRAW in inspect.signature(envs.unwrapped.render).parameters
    except (TypeError, ValueError):
        return False


def _rendered_one_by_one(envs: Any) -> Any:
    try:
        batches = [envs.unwrapped.render(**{ENVS_TO_DRAW: [index]}) for index in range(envs.num_envs)]
    except Exception as error:
        raise rendering_error(f"{env_name(envs)} cannot render", error) from error
    return batches[0] if batches[0] is None else [batch[0] for batch in batches]


def rendering_error(what: str, cause: Exception) -> RenderError:
    """Returns an error that begins with ``what``, for an environment that failed to render; see :func:`render`."""
    return RenderError(f"{what}: {explain_failure(cause)}")


def explain_failure(cause: Exception) -> str:
    """Returns the message of an error, its remedy if a display is missing, and what is logged without frames."""
    return f"{describe_error(cause)} {display_remedy(cause)}{WITHOUT_VIDEOS}"


def _describe(frame: Any) -> str:
    return "None" if frame is None else f"{type(frame).__name__} of shape {np.shape(frame)}"


def _to_rgb(frame: Any, env: Any) -> RawFrame:
    """Converts RGB, RGBA or gray pixels, or the last entry of a list of these, to RGB in an array of its own.

    Environments may draw the next state into the array that they have returned.
    """
    if isinstance(frame, list) and frame:
        frame = frame[-1]
    pixels = _in_declared_range(_as_array(frame), env) if frame is not None else np.empty(0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        raise RenderError(
            f"{env_name(env)} was made with render_mode={env.render_mode!r} and its render() returned "
            f"{_describe(frame)}; {NO_FRAME if frame is None else WRONG_SHAPE}"
        )
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else np.array(pixels[..., :3], order="C")


def _as_array(frame: Any) -> RawFrame:
    """Converts a frame to an array: also tensors of any device and dtype, and pictures of Pillow."""
    if callable(getattr(frame, "detach", None)):
        frame = frame.detach().cpu()
        frame = frame.float() if "bfloat16" in str(frame.dtype) else frame  # which numpy does not have
    if callable(getattr(frame, "convert", None)) and hasattr(frame, "getbands"):
        frame = frame.convert("RGB")  # pixels of a palette are no colors
    return np.asarray(frame)


def _in_declared_range(pixels: RawFrame, env: Any) -> RawFrame:
    """Converts floats to ``uint8`` if the observations are such pictures and their space ends at 255.

    Dark frames do not show whether floats are in [0, 1] or in [0, 255].
    """
    space = env.single_observation_space if isinstance(env, VectorEnv) else getattr(env, "observation_space", None)
    if pixels.dtype.kind != "f" or not isinstance(space, spaces.Box) or space.shape != pixels.shape:
        return pixels
    is_declared = (
        space.high.dtype.kind == "f" and bool((space.high == 255).all()) and pixels.min() >= 0 and pixels.max() <= 255
    )
    return np.rint(pixels).astype(np.uint8) if is_declared else pixels
