"""Replay memory in numpy: the last transitions of one env, every frame of it kept once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Transitions(NamedTuple):
    """B transitions in the order in which they were drawn."""

    observation: Tensor  # [B, ...] float32, or uint8 for pictures
    action: Tensor  # [B] int64, or [B, D] float32
    reward: Tensor  # [B] float32
    next_observation: Tensor  # like observation
    terminated: Tensor  # [B] bool; False where only a time limit struck: the state that follows still has a value

    def to(self, device: torch.device) -> Transitions:
        """The same on another device."""
        return Transitions(*(column.to(device) for column in self))


class ReplayBuffer:
    """A ring of rows: each holds an observation and what was done there, and the row behind it what came of it.

    So an observation is kept once, though it is the end of one transition and the start of the next, and an episode
    takes one row more than it has steps. Of observations that are stacks of the last K frames, as
    ``gymnasium.wrappers.FrameStackObservation`` makes them, only the newest frame is kept, and the stack is put
    together when it is drawn: 50,000 rows of Atari take 0.35 GB, where whole stacks with their successors take 2.8 GB.

    Args:
        capacity: Rows. Memory is taken as they fill.
        observation_space: Of the env.
        action_space: Of the env.
        stacked_frames: K, for observations [K, ...]; 1 where observations are not stacked.
        seed: Of the draws.

    Example:
        >>> env = gym.make("CartPole-v1")
        >>> buffer = ReplayBuffer(100, env.observation_space, env.action_space)
        >>> buffer.begin(env.reset(seed=0)[0])
        >>> for _ in range(5):
        ...     observation, reward, terminated, truncated, _ = env.step(1)
        ...     buffer.add(1, float(reward), observation, terminated)
        >>> len(buffer), buffer.sample(32).next_observation.shape
        (5, torch.Size([32, 4]))
    """

    def __init__(
        self,
        capacity: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        stacked_frames: int = 1,
        seed: int = 0,
    ) -> None:
        if capacity < stacked_frames + 2:
            raise ValueError(f"capacity is {capacity}; allowed is a whole number ≥ {stacked_frames + 2}")
        shape = observation_space.shape or ()
        self.dtype: np.dtype[Any] = np.dtype(np.uint8 if observation_space.dtype == np.uint8 else np.float32)
        is_discrete = isinstance(action_space, gym.spaces.Discrete)
        self._stacked = stacked_frames
        self._frames = np.zeros((capacity, *(shape[1:] if stacked_frames > 1 else shape)), self.dtype)
        self._actions = np.zeros((capacity, *(action_space.shape or ())), np.int64 if is_discrete else np.float32)
        self._rewards = np.zeros(capacity, np.float32)
        self._terminated = np.zeros(capacity, np.bool_)
        self._ages = np.zeros(capacity, np.int64)  # steps since the episode began
        self._is_complete = np.zeros(capacity, np.bool_)  # all that a transition needs is there
        self._newest = -1
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return int(np.count_nonzero(self._is_complete))

    def begin(self, observation: npt.ArrayLike) -> None:
        """Takes the first observation of an episode.

        Raises:
            ValueError: If it is not a stack of equal frames, which is how stacks begin.
        """
        frames = np.asarray(observation)
        if self._stacked > 1 and (len(frames) != self._stacked or not np.all(frames == frames[-1:])):
            raise ValueError(
                f"stacked_frames is {self._stacked}, but the first observation, of shape {list(frames.shape)}, is not "
                f"one frame {self._stacked} times over, as FrameStackObservation(padding_type='reset') begins; "
                "allowed is 1 for all other observations"
            )
        self._append(frames, age=0)

    def add(self, action: npt.ArrayLike, reward: float, next_observation: npt.ArrayLike, terminated: bool) -> None:
        """Takes a step from the latest observation."""
        row = self._newest
        self._actions[row], self._rewards[row], self._terminated[row] = action, reward, terminated
        self._append(np.asarray(next_observation), age=int(self._ages[row]) + 1)
        self._is_complete[row] = True

    def _append(self, observation: npt.NDArray[Any], age: int) -> None:
        self._newest = (self._newest + 1) % len(self._frames)
        self._frames[self._newest] = observation[-1] if self._stacked > 1 else observation
        self._ages[self._newest] = age
        looks_back_here = (self._newest + np.arange(self._stacked)) % len(self._frames)
        self._is_complete[looks_back_here] = False

    def sample(self, batch_size: int) -> Transitions:
        """Draws transitions uniformly, with replacement.

        Raises:
            ValueError: If there is none yet.
        """
        complete = np.flatnonzero(self._is_complete)
        rows = complete[self._rng.integers(len(complete), size=batch_size)]
        columns: Mapping[str, npt.NDArray[Any]] = {
            "observation": self._observations(rows),
            "action": self._actions[rows],
            "reward": self._rewards[rows],
            "next_observation": self._observations((rows + 1) % len(self._frames)),
            "terminated": self._terminated[rows],
        }
        return Transitions(**{name: torch.from_numpy(column) for name, column in columns.items()})

    def _observations(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if self._stacked == 1:
            return np.asarray(self._frames[rows])
        steps_back = np.arange(self._stacked - 1, -1, -1)
        within_episode = np.minimum(steps_back, self._ages[rows, None])  # the first frame stands for those before it
        return np.asarray(self._frames[(rows[:, None] - within_episode) % len(self._frames)])
