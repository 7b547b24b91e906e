"""Stochastic policies that the demos share: observations [B, O] to distributions over a batch of actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Categorical,
    Independent,
    Normal,
    TanhTransform,
    Transform,
    TransformedDistribution,
)

from rlwandb_callbacks.demos.networks import make_mlp

LOG_STD_RANGE = (-5.0, 2.0)


class DiscreteActor(nn.Module):
    """Answers with a `Categorical` over A actions.

    Args:
        sizes: Of the observation, the hidden layers, and A.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.network = make_mlp(sizes, nn.Tanh, last_gain=0.01)

    def forward(self, observation: Tensor) -> Categorical:
        """Observations [B, O] to a distribution over [B]."""
        return Categorical(logits=self.network(observation), validate_args=False)


class GaussianActor(nn.Module):
    """Answers with a diagonal Gaussian over D dimensions, whose spread is the same in all states.

    Args:
        sizes: Of the observation, the hidden layers, and D.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.network = make_mlp(sizes, nn.Tanh, last_gain=0.01)
        self.log_std = nn.Parameter(torch.zeros(sizes[-1]))

    def forward(self, observation: Tensor) -> Independent[Normal]:
        """Observations [B, O] to a distribution over [B, D]."""
        mean = self.network(observation)
        normal = Normal(mean, self.log_std.exp().expand_as(mean), validate_args=False)
        return Independent(normal, 1, validate_args=False)


class SquashedGaussianActor(nn.Module):
    """Answers with a Gaussian that is squashed into the bounds of the actions.

    Args:
        sizes: Of the observation and the hidden layers.
        action_space: With finite bounds.

    Raises:
        ValueError: If a bound is infinite.
    """

    low: Tensor
    high: Tensor

    def __init__(self, sizes: Sequence[int], action_space: spaces.Box) -> None:
        super().__init__()
        if not action_space.is_bounded() or len(action_space.shape) != 1:
            raise ValueError(f"A squashed Gaussian needs a flat Box of bounded actions; this is {action_space}")
        self.network = make_mlp([*sizes, 2 * action_space.shape[0]])
        self.register_buffer("low", torch.as_tensor(action_space.low, dtype=torch.float32))
        self.register_buffer("high", torch.as_tensor(action_space.high, dtype=torch.float32))

    def forward(self, observation: Tensor) -> SquashedGaussian:
        """Observations [B, O] to a distribution over [B, D]."""
        mean, log_std = self.network(observation).chunk(2, dim=-1)
        return SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE).exp(), self.low, self.high)


class SquashedGaussian(TransformedDistribution):
    """A Gaussian through tanh, stretched to bounds (Haarnoja et al. 2018, "Soft actor-critic", appendix C).

    Torch can sample it and tell a log-probability per dimension. What evaluation and its pictures need besides is here:
    the action to take without noise, and mean and standard deviation of actions.

    Args:
        mean: [..., D] before squashing.
        std: [..., D] before squashing, > 0.
        low: [D], smallest action.
        high: [D], largest action.

    Example:
        >>> policy = SquashedGaussian(torch.zeros(1), torch.ones(1), torch.tensor([-2.0]), torch.tensor([4.0]))
        >>> policy.mode, round(float(policy.stddev), 1)
        (tensor([1.]), 1.9)
    """

    def __init__(self, mean: Tensor, std: Tensor, low: Tensor, high: Tensor) -> None:
        # Both remember what they were given: where tanh is 1 to the last digit, its inverse is infinite.
        stretch = AffineTransform((low + high) / 2, (high - low) / 2, cache_size=1)
        squash: list[Transform] = [TanhTransform(cache_size=1), stretch]
        super().__init__(Normal(mean, std, validate_args=False), squash, validate_args=False)

    @property
    def mode(self) -> Tensor:
        """[..., D]: the squashed mean of the Gaussian, which SAC acts by in evaluation; the density may peak beside."""
        return self._squashed(self.base_dist.mean)

    @property
    def mean(self) -> Tensor:
        """[..., D], of actions."""
        return self._actions_at_quantiles().mean(dim=0)

    @property
    def stddev(self) -> Tensor:
        """[..., D], of actions."""
        return self._actions_at_quantiles().std(dim=0, correction=0)

    @property
    def variance(self) -> Tensor:
        """[..., D], of actions."""
        return self.stddev.square()

    def _actions_at_quantiles(self, count: int = 64) -> Tensor:
        """[count, ..., D]: actions at evenly spaced quantiles, which hold the moments without drawing numbers."""
        base = self.base_dist
        quantiles = (torch.arange(count, device=base.mean.device) + 0.5) / count
        return self._squashed(base.icdf(quantiles.reshape(-1, *[1] * base.mean.ndim)))

    def _squashed(self, values: Tensor) -> Tensor:
        for transform in self.transforms:
            values = transform(values)
        return values


def make_actor(observation_size: int, hidden_sizes: Sequence[int], action_space: spaces.Space[Any]) -> nn.Module:
    """An actor for Discrete actions from 0 on, or for a flat Box.

    Raises:
        ValueError: If the actions are something else.
    """
    match action_space:
        case spaces.Discrete(n=n, start=0):
            return DiscreteActor([observation_size, *hidden_sizes, int(n)])
        case spaces.Box(shape=(size,)):
            return GaussianActor([observation_size, *hidden_sizes, size])
        case _:
            raise ValueError(f"An actor needs Discrete actions from 0 on, or a flat Box; this is {action_space}")
