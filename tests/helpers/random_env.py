"""An environment with random observations, and the returns of a policy that plays each episode by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces


class RandomEnv(gym.Env[Any, Any]):
    """Environment with vectors of random numbers as observations, rewards of zero, and six steps.

    Args:
        observations: Numbers in an observation.
        actions: Numbers in an action.
    """

    length = 6

    def __init__(self, observations: int = 3, actions: int = 2) -> None:
        self.observation_space: Any = spaces.Box(-np.inf, np.inf, (observations,), np.float32)
        self.action_space: Any = spaces.Box(-9.0, 9.0, (actions,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self) -> Any:
        return self.np_random.normal(size=self.observation_space.shape).astype(np.float32)

    def reward(self, action: Any) -> float:
        return 0.0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observe(), self.reward(action), self.steps >= self.length, False, {}


def returns_alone(make_env: Callable[[], Any], make_policy: Callable[[], Any], episodes: int) -> list[float]:
    """Plays each episode with a policy of its own and a batch of one, as a user's script does."""
    returns = []
    for seed in range(episodes):
        env, policy = make_env(), make_policy()
        observation, done, total = env.reset(seed=seed)[0], False, 0.0
        while not done:
            with torch.no_grad():
                actions = policy(torch.from_numpy(observation[None]))
            action = np.clip(actions[0].numpy(), env.action_space.low, env.action_space.high)
            observation, reward, done, _, _ = env.step(action)
            total += reward
        returns.append(total)
    return returns
