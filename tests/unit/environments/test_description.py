from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlwandb_callbacks.environments.description import frames_per_second
from rlwandb_callbacks.testing import CorridorEnv

RETRO = {"render_modes": ["human", "rgb_array"], "video.frames_per_second": 60.0}  # of stable-retro 1.0.1


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (RETRO, 60.0),
        ({**RETRO, "render_fps": 15}, 15.0),
        ({**RETRO, "render_fps": None}, 60.0),
        ({"render_fps": np.int64(25)}, 25.0),
        ({"render_fps": np.float32(12.5)}, 12.5),
        ({"render_fps": True}, 30.0),
        ({"render_fps": float("inf")}, 30.0),
        ({"render_fps": "fast"}, 30.0),
        ({}, 30.0),
        (None, 30.0),
    ],
)
def test_frame_rate_is_that_of_the_metadata(metadata: Any, expected: float) -> None:
    env = CorridorEnv()
    env.metadata = metadata
    assert frames_per_second(env) == expected


def test_frame_rate_is_found_below_a_wrapper_with_metadata_of_its_own() -> None:
    env = CorridorEnv()
    env.metadata = RETRO
    wrapped: Any = gym.Wrapper(env)
    wrapped.metadata = {"render_modes": ["rgb_array"]}
    assert frames_per_second(wrapped) == 60.0
