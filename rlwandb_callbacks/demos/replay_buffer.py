"""Replay memory of the off-policy demos: a ring of single transitions that share their observations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Observation = npt.NDArray[Any] | tuple[npt.NDArray[Any], ...]  # a tuple holds the frames of a stack


class Transition(NamedTuple):
    """One env step as it is stored."""

    observation: Observation
    action: npt.NDArray[Any]
    reward: np.float32
    next_observation: Observation
    terminated: bool  # False if only a time limit ended the episode: the next state still has a value


class Transitions(NamedTuple):
    """Batch of B transitions in the order in which they were drawn."""

    observation: Tensor  # [B, ...] float32, or uint8 for images
    action: Tensor  # [B] int64, or [B, D] float32
    reward: Tensor  # [B] float32
    next_observation: Tensor  # like observation
    terminated: Tensor  # [B] bool

    def to(self, device: torch.device) -> Transitions:
        """Returns the batch on another device."""
        return Transitions(*(column.to(device) for column in self))


class ReplayBuffer:
    """Ring of the latest transitions, sampled uniformly with replacement.

    It stores references. An observation that ends one transition and starts the next is held once, and so is a frame
    that several stacks have in common: 100,000 transitions of Atari take 0.7 GB instead of 5.6 GB. TorchRL's
    `ReplayBuffer` takes three times as long to draw a small batch, and its release 0.9 cannot be copied or pickled.

    Args:
        capacity: Transitions kept, ≥ 1; the oldest are overwritten.
        seed: Seed of the draws.

    Example:
        >>> buffer, state = ReplayBuffer(100, seed=0), np.zeros(4, np.float32)
        >>> for _ in range(5):
        ...     buffer.add(Transition(state, np.int64(1), np.float32(1.0), state, terminated=False))
        >>> len(buffer), buffer.sample(32).next_observation.shape
        (5, torch.Size([32, 4]))
    """

    def __init__(self, capacity: int, seed: int) -> None:
        if capacity < 1:
            raise ValueError(f"buffer_size is {capacity}; it must be an integer ≥ 1")
        self._capacity = capacity
        self._transitions: list[Transition] = []
        self._oldest = 0
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self._transitions)

    def add(self, transition: Transition) -> None:
        """Stores a transition, in place of the oldest one if the buffer is full."""
        if len(self._transitions) < self._capacity:
            self._transitions.append(transition)
        else:
            self._transitions[self._oldest] = transition
            self._oldest = (self._oldest + 1) % self._capacity

    def sample(self, batch_size: int) -> Transitions:
        """Draws a batch of transitions.

        Raises:
            ValueError: If the buffer is empty.
        """
        indices = self._rng.integers(len(self._transitions), size=batch_size)
        drawn = [self._transitions[index] for index in indices.tolist()]
        return Transitions(*(torch.from_numpy(np.array(column)) for column in zip(*drawn, strict=True)))
