"""Plays several envs side by side and keeps apart where an episode ended and where the next one began."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor
from torch.distributions import Distribution


class Rollout(NamedTuple):
    """T steps in each of N envs; every row is a step that was taken."""

    observation: Tensor  # [T, N, O] float32
    action: Tensor  # [T, N], or [T, N, D] before it is clipped to the bounds
    log_prob: Tensor  # [T, N] of the action when it was drawn
    reward: Tensor  # [T, N] float32
    next_observation: Tensor  # [T, N, O] float32: at an episode's end the last one of that episode
    terminated: Tensor  # [T, N] bool
    ended: Tensor  # [T, N] bool: terminated or truncated


class VectorPlayer:
    """Plays N envs on and on.

    The envs do not reset themselves. Gymnasium's default, NEXT_STEP, has a step in which nothing is played after every
    episode, and that must not be learnt from; SAME_STEP hides the last observation, which a truncated episode is still
    worth something for. With autoreset off, both are simply there.

    Args:
        make_env: Makes one env.
        num_envs: N ≥ 1.
        seed: Of the first resets.

    Attributes:
        returns: Undiscounted returns of the last 20 complete episodes.
        episodes: Episodes completed so far.
    """

    def __init__(self, make_env: Callable[[], gym.Env[Any, Any]], num_envs: int, seed: int) -> None:
        self.envs = SyncVectorEnv([make_env] * num_envs, autoreset_mode=AutoresetMode.DISABLED)
        self.returns: deque[float] = deque(maxlen=20)
        self.episodes = 0
        self._returns_so_far = np.zeros(num_envs)
        self._observation: Any = self.envs.reset(seed=seed)[0]

    @torch.no_grad()
    def play(self, actor: Callable[[Tensor], Distribution], steps: int, device: torch.device) -> Rollout:
        """Goes on where the last call stopped, for this many steps in each env; what comes back is on `device`."""
        rows = [self._step(actor, device) for _ in range(steps)]
        return Rollout(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def _step(self, actor: Callable[[Tensor], Distribution], device: torch.device) -> Rollout:
        observation = torch.as_tensor(self._observation, dtype=torch.float32, device=device)
        distribution = actor(observation)
        action = distribution.sample()
        reached, reward, terminated, truncated, _ = self.envs.step(self._within_bounds(action))
        ended = np.logical_or(terminated, truncated)
        self._count(reward, ended)
        self._observation = self.envs.reset(options={"reset_mask": ended})[0] if ended.any() else reached
        return Rollout(
            observation,
            action,
            distribution.log_prob(action),
            torch.as_tensor(reward, dtype=torch.float32, device=device),
            torch.as_tensor(reached, dtype=torch.float32, device=device),
            torch.as_tensor(terminated, device=device),
            torch.as_tensor(ended, device=device),
        )

    def _within_bounds(self, action: Tensor) -> Any:
        space, array = self.envs.single_action_space, action.cpu().numpy()
        return np.clip(array, space.low, space.high) if isinstance(space, gym.spaces.Box) else array

    def _count(self, reward: Any, ended: Any) -> None:
        self._returns_so_far += reward
        self.returns.extend(self._returns_so_far[ended].tolist())
        self.episodes += int(ended.sum())
        self._returns_so_far[ended] = 0.0
