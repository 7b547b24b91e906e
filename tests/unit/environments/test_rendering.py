"""Frames that environments return as tensors, pictures or floats."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorWrapper
from PIL import Image

from rlwandb_callbacks.environments.rendering import render, render_each
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.media.pixel_range import PixelRange

RED = np.broadcast_to(np.array([255, 0, 51], np.uint8), (4, 6, 3))
TENSOR = torch.tensor(RED.copy())


class Shows(gym.Env[Any, Any]):
    """Environment that returns one frame; its observations are pictures, if a space is given."""

    action_space = gym.spaces.Discrete(2)
    render_mode = "rgb_array"

    def __init__(self, frame: Any, space: gym.Space[Any] | None = None) -> None:
        self.frame = frame
        self.observation_space = space or gym.spaces.Discrete(2)

    def render(self) -> Any:
        return self.frame


@pytest.mark.parametrize(
    "frame",
    [
        TENSOR,
        TENSOR / 255,
        (TENSOR / 255).requires_grad_(),
        TENSOR.double(),
        (TENSOR / 255).half(),
        (TENSOR / 255).bfloat16(),
        Image.fromarray(RED),
        Image.fromarray(RED).convert("P"),
        Image.fromarray(RED).convert("RGBA"),
        [RED / 255],
        np.dstack([RED, RED[..., :1]]) / 255,
    ],
    ids=["uint8", "floats", "graph", "0..255", "half", "bfloat16", "RGB", "palette", "RGBA", "list", "RGBA floats"],
)
def test_frames_of_any_type_have_their_colors(frame: Any) -> None:
    pixels = PixelRange().to_uint8(render(Shows(frame)))
    assert pixels.shape == RED.shape
    assert np.abs(pixels.astype(int) - RED).max() <= 1


@pytest.mark.parametrize(("high", "expected"), [(255.0, 1), (1.0, 255)])
def test_a_dark_frame_of_floats_has_the_range_of_the_observation_space(high: float, expected: int) -> None:
    space = gym.spaces.Box(0.0, high, (4, 6, 3), np.float32)
    frame = render(Shows(np.ones((4, 6, 3), np.float32), space))
    assert PixelRange().to_uint8(frame).max() == expected


def test_the_space_of_other_observations_does_not_count() -> None:
    for space in (gym.spaces.Box(0, 255, (4, 6, 3), np.uint8), gym.spaces.Box(0.0, 255.0, (9,), np.float32)):
        frame = render(Shows(np.full((4, 6, 3), 0.5, np.float32), space))
        assert PixelRange().to_uint8(frame).max() == 128


def test_a_picture_that_the_environment_draws_over_is_copied() -> None:
    env = Shows(RED.copy())
    first = render(env)
    env.frame[:] = 7
    assert np.array_equal(first, RED)
    assert np.array_equal(render(env), np.full_like(RED, 7))


class ShowsMany(gym.vector.VectorEnv[Any, Any, Any]):
    """Pool of three environments that draws into one buffer, by default the first environment as EnvPool does."""

    render_mode = "rgb_array"
    num_envs = 3
    single_observation_space = gym.spaces.Discrete(2)

    def __init__(self, *, draws_one_by_one: bool) -> None:
        self.buffer = np.zeros((3, 4, 6, 3), np.uint8)
        self.shade = 0
        if draws_one_by_one:
            self.render = self.render_some  # type: ignore[method-assign]  # as if defined so

    def render(self) -> Any:
        self.buffer[:] = np.arange(3)[:, None, None, None] + self.shade
        return self.buffer

    def render_some(self, env_ids: Any = None, camera_id: int | None = None) -> Any:
        indices = [0] if env_ids is None else env_ids
        return ShowsMany.render(self)[indices]


@pytest.mark.parametrize("draws_one_by_one", [False, True])
def test_each_environment_of_a_vector_has_its_picture_even_if_buffers_are_used_again(draws_one_by_one: bool) -> None:
    envs = ShowsMany(draws_one_by_one=draws_one_by_one)
    first = render_each(envs)
    envs.shade = 50
    later = render_each(VectorWrapper(envs))
    assert [int(frame[0, 0, 0]) for frame in first] == [0, 1, 2]
    assert [int(frame[0, 0, 0]) for frame in later] == [50, 51, 52]


def test_a_pool_without_a_render_mode_is_named() -> None:
    class Blind(ShowsMany):
        def render_some(self, env_ids: Any = None, camera_id: int | None = None) -> Any:
            raise RuntimeError("render_mode must be set")

    with pytest.raises(RenderError, match=r"Blind cannot render: RuntimeError: render_mode must be set"):
        render_each(Blind(draws_one_by_one=True))
