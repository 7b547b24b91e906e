"""Advantages of what was played in several envs at once, where some episodes end on the way."""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, ended: Tensor, *, gamma: float, decay: float
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, "High-dimensional continuous control using GAE").

    The sum of temporal-difference errors ends with the episode. The state in which it ended has no value where the env
    terminated, and keeps its value where only a time limit struck.

    Args:
        reward: [T, N] of N envs over T steps.
        value: [T, N] of the states in which the steps were taken.
        next_value: [T, N] of the states they led to: at an episode's end of its last state, not of the next episode's
            first.
        terminated: [T, N] bool: the env itself ended the episode there.
        ended: [T, N] bool: terminated, or truncated.
        gamma: Discount per step, 0 to 1.
        decay: Lambda, 0 (only the next step counts) to 1 (all that follow).

    Returns:
        [T, N].

    Example:
        >>> zeros, no = torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.bool)
        >>> generalised_advantages(zeros + 1, zeros, zeros, no, no, gamma=0.5, decay=1.0)[:, 0]
        tensor([1.7500, 1.5000, 1.0000])
    """
    errors = reward + gamma * next_value.masked_fill(terminated, 0.0) - value
    advantages = torch.empty_like(errors)
    following = torch.zeros_like(errors[0])
    for step in reversed(range(len(errors))):
        following = errors[step] + gamma * decay * following.masked_fill(ended[step], 0.0)
        advantages[step] = following
    return advantages


def explained_variance(predicted: Tensor, target: Tensor) -> Tensor:
    """Fraction of the variance of `target` that `predicted` holds: 1 at best, 0 for a constant, negative for worse; [].

    Example:
        >>> explained_variance(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor(1.)
    """
    return 1.0 - (target - predicted).var() / target.var().clamp_min(torch.finfo(target.dtype).tiny)
