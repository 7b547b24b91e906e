"""Plays several envs at once and records complete transitions, also at the ends of episodes."""

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
    """T steps in each of N envs; every row is one step of one episode."""

    observation: Tensor  # [T, N, O] float32
    action: Tensor  # [T, N], or [T, N, D] before clipping to the bounds
    log_prob: Tensor  # [T, N] log-probability of the action when it was drawn
    reward: Tensor  # [T, N] float32
    next_observation: Tensor  # [T, N, O] float32: at the end of an episode its last observation
    terminated: Tensor  # [T, N] bool
    done: Tensor  # [T, N] bool: terminated or truncated


class VectorPlayer:
    """Plays N envs, episode after episode.

    Autoreset is disabled. Gymnasium's default, NEXT_STEP, inserts a step without an action after every episode, which
    must not be learned from; SAME_STEP replaces the last observation, whose value counts if the episode was truncated.

    Args:
        make_env: Makes one env.
        num_envs: N ≥ 1.
        seed: Seed of the first resets.

    Attributes:
        envs: The vector env.
        returns: Undiscounted returns of the last 20 completed episodes.
        episodes: Episodes completed so far.
    """

    def __init__(self, make_env: Callable[[], gym.Env[Any, Any]], num_envs: int, seed: int) -> None:
        self.envs = SyncVectorEnv([make_env] * num_envs, autoreset_mode=AutoresetMode.DISABLED)
        self.returns: deque[float] = deque(maxlen=20)
        self.episodes = 0
        self._running_returns = np.zeros(num_envs)
        self._observation: Any = self.envs.reset(seed=seed)[0]

    @torch.no_grad()
    def play(self, actor: Callable[[Tensor], Distribution], steps: int, device: torch.device) -> Rollout:
        """Continues where the last call stopped.

        Args:
            actor: Maps observations [N, O] to a distribution over N actions.
            steps: T, steps in each env.
            device: Device of the actor and of the rollout.
        """
        rows = [self._step(actor, device) for _ in range(steps)]
        return Rollout(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def _step(self, actor: Callable[[Tensor], Distribution], device: torch.device) -> Rollout:
        observation = torch.as_tensor(self._observation, dtype=torch.float32, device=device)
        distribution = actor(observation)
        action = distribution.sample()
        next_observation, reward, terminated, truncated, _ = self.envs.step(self._clip(action))
        done = np.logical_or(terminated, truncated)
        self._count(reward, done)
        self._observation = self.envs.reset(options={"reset_mask": done})[0] if done.any() else next_observation
        return Rollout(
            observation,
            action,
            distribution.log_prob(action),
            torch.as_tensor(reward, dtype=torch.float32, device=device),
            torch.as_tensor(next_observation, dtype=torch.float32, device=device),
            torch.as_tensor(terminated, device=device),
            torch.as_tensor(done, device=device),
        )

    def _clip(self, action: Tensor) -> Any:
        space, array = self.envs.single_action_space, action.cpu().numpy()
        return np.clip(array, space.low, space.high) if isinstance(space, gym.spaces.Box) else array

    def _count(self, reward: Any, done: Any) -> None:
        self._running_returns += reward
        self.returns.extend(self._running_returns[done].tolist())
        self.episodes += int(done.sum())
        self._running_returns[done] = 0.0
