"""Frames that environments return as tensors, pictures or floats."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

from rlwandb_callbacks.environments.rendering import render
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
