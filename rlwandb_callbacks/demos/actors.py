"""Stochastic policies of the demos: networks from observations [B, O] to a distribution over B actions."""

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
    """Policy with a `Categorical` distribution over A actions.

    Args:
        sizes: Sizes of the observation, the hidden layers, and A.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.network = make_mlp(sizes, nn.Tanh, last_gain=0.01)

    def forward(self, observation: Tensor) -> Categorical:
        """Maps observations [B, O] to a distribution over actions [B]."""
        return Categorical(logits=self.network(observation), validate_args=False)


class GaussianActor(nn.Module):
    """Policy with a diagonal Gaussian over D dimensions and a learned, state-independent standard deviation.

    Args:
        sizes: Sizes of the observation, the hidden layers, and D.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.network = make_mlp(sizes, nn.Tanh, last_gain=0.01)
        self.log_std = nn.Parameter(torch.zeros(sizes[-1]))

    def forward(self, observation: Tensor) -> Independent[Normal]:
        """Maps observations [B, O] to a distribution over actions [B, D]."""
        mean = self.network(observation)
        normal = Normal(mean, self.log_std.exp().expand_as(mean), validate_args=False)
        return Independent(normal, 1, validate_args=False)


class SquashedGaussianActor(nn.Module):
    """Policy with a Gaussian that is squashed into the bounds of the actions.

    Args:
        sizes: Sizes of the observation and the hidden layers.
        action_space: Flat Box with finite bounds.

    Raises:
        ValueError: If the actions are not flat, or a bound is infinite.
    """

    low: Tensor
    high: Tensor

    def __init__(self, sizes: Sequence[int], action_space: spaces.Box) -> None:
        super().__init__()
        if not action_space.is_bounded() or len(action_space.shape) != 1:
            raise ValueError(f"SAC needs actions in a flat Box with finite bounds; they are {action_space}")
        self.network = make_mlp([*sizes, 2 * action_space.shape[0]])
        self.register_buffer("low", torch.as_tensor(action_space.low, dtype=torch.float32))
        self.register_buffer("high", torch.as_tensor(action_space.high, dtype=torch.float32))

    def forward(self, observation: Tensor) -> SquashedGaussian:
        """Maps observations [B, O] to a distribution over actions [B, D]."""
        mean, log_std = self.network(observation).chunk(2, dim=-1)
        return SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE).exp(), self.low, self.high)


class SquashedGaussian(TransformedDistribution):
    """Gaussian squashed by tanh and scaled to bounds (Haarnoja et al. 2018, "Soft actor-critic", appendix C).

    TorchRL's `TanhNormal` has no mode, mean and standard deviation, which evaluation shows, and recomputes the Gaussian
    value of an action by the inverse of tanh: beyond |x| = 8 its log-probability is off by up to thousands of nats.
    Here the transforms cache that value.

    Args:
        mean: Mean before squashing, [..., D].
        std: Standard deviation before squashing, [..., D], > 0.
        low: Smallest action, [D].
        high: Largest action, [D].

    Example:
        >>> policy = SquashedGaussian(torch.zeros(1), torch.ones(1), torch.tensor([-2.0]), torch.tensor([4.0]))
        >>> policy.mode, round(float(policy.stddev), 1)
        (tensor([1.]), 1.9)
    """

    def __init__(self, mean: Tensor, std: Tensor, low: Tensor, high: Tensor) -> None:
        # The caches avoid inverting tanh, which is impossible where it is 1.0 in float32.
        scale = AffineTransform((low + high) / 2, (high - low) / 2, cache_size=1)
        squash: list[Transform] = [TanhTransform(cache_size=1), scale]
        super().__init__(Normal(mean, std, validate_args=False), squash, validate_args=False)

    @property
    def mode(self) -> Tensor:
        """Squashed mean of the Gaussian, [..., D]: SAC's action in evaluation; the density may peak elsewhere."""
        return self._squash(self.base_dist.mean)

    @property
    def mean(self) -> Tensor:
        """Mean of the actions, [..., D]."""
        return self._actions_at_quantiles().mean(dim=0)

    @property
    def stddev(self) -> Tensor:
        """Standard deviation of the actions, [..., D]."""
        return self._actions_at_quantiles().std(dim=0, correction=0)

    @property
    def variance(self) -> Tensor:
        """Variance of the actions, [..., D]."""
        return self.stddev.square()

    def _actions_at_quantiles(self, count: int = 64) -> Tensor:
        """Returns the actions at evenly spaced quantiles, [count, ..., D], which give the moments without sampling."""
        base = self.base_dist
        quantiles = (torch.arange(count, device=base.mean.device) + 0.5) / count
        return self._squash(base.icdf(quantiles.reshape(-1, *[1] * base.mean.ndim)))

    def _squash(self, values: Tensor) -> Tensor:
        for transform in self.transforms:
            values = transform(values)
        return values


def make_actor(observation_size: int, hidden_sizes: Sequence[int], action_space: spaces.Space[Any]) -> nn.Module:
    """Makes an actor for Discrete actions that start at 0, or for a flat Box.

    Raises:
        ValueError: If the action space is a different one.
    """
    match action_space:
        case spaces.Discrete(n=n, start=0):
            return DiscreteActor([observation_size, *hidden_sizes, int(n)])
        case spaces.Box(shape=(size,)):
            return GaussianActor([observation_size, *hidden_sizes, size])
        case _:
            raise ValueError(f"PPO needs Discrete actions that start at 0, or a flat Box; they are {action_space}")
