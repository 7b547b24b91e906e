"""Tiny environments whose returns, frames and lengths can be computed by hand."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class CorridorEnv(gym.Env[NDArray[np.float32], np.int64]):
    """A corridor whose length depends on the seed; the agent must walk to its right end.

    Observations are ``[position / length, 1]``. Action 1 moves right with reward 1, and action 0 stays with reward -1.
    The end of a corridor of ``2 + seed % 5`` cells is a success; after 20 steps the episode is truncated. Frames have a
    white column at the agent's position.

    Args:
        render_mode: ``rgb_array`` or None.
        size: Height and width of frames in pixels; may be odd.

    Example:
        >>> env = CorridorEnv()
        >>> _ = env.reset(seed=1)
        >>> [env.step(1)[2] for _ in range(3)]
        [False, False, True]
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012  # gymnasium's own form

    def __init__(self, render_mode: str | None = None, size: tuple[int, int] = (45, 61)) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._size = size
        self._length = 2
        self._position = 0
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Sets the length by the seed."""
        super().reset(seed=seed)
        self._length, self._position, self._steps = 2 + (seed or 0) % 5, 0, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves or stays."""
        self._steps += 1
        self._position += int(action == 1)
        at_end = self._position >= self._length
        truncated = self._steps >= 20 and not at_end
        return self._observation(), 1.0 if action == 1 else -1.0, at_end, truncated, {"is_success": at_end}

    def render(self) -> NDArray[np.uint8] | None:
        """Draws the agent."""
        if self.render_mode != "rgb_array":
            return None
        height, width = self._size
        picture = np.zeros((height, width, 3), np.uint8)
        column = min(self._position * width // 8, width - 1)
        picture[:, column : column + max(1, width // 8)] = 255
        return picture

    def get_action_meanings(self) -> list[str]:
        """Returns the names of the actions."""
        return ["STAY", "RIGHT"]

    def _observation(self) -> NDArray[np.float32]:
        return np.array([self._position / self._length, 1.0], np.float32)


class PointEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A point on a line that must be moved to zero in ten steps; the reward is its negative distance.

    Args:
        render_mode: ``rgb_array`` or None.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # gymnasium's own form

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self._x = 0.0
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Samples the start by the seed."""
        super().reset(seed=seed)
        self._x, self._steps = float(self.np_random.uniform(-3, 3)), 0
        return np.array([self._x], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves the point by the action."""
        self._steps += 1
        self._x += float(action[0])
        return np.array([self._x], np.float32), -abs(self._x), False, self._steps >= 10, {}

    def render(self) -> NDArray[np.uint8] | None:
        """Draws a gray square with the point as a white column."""
        if self.render_mode != "rgb_array":
            return None
        picture = np.full((64, 64, 3), 90, np.uint8)
        picture[:, int(np.clip(32 + 8 * self._x, 0, 63))] = 255
        return picture
