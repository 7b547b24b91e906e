"""Networks that the demos share. In shapes, B is the size of a batch, O of an observation, A of the outputs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it torch draws from `seed`; its own generator goes on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def make_mlp(
    sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU, *, last_gain: float | None = None
) -> nn.Sequential:
    """Maps [B, sizes[0]] float32 to [B, sizes[-1]] through fully connected layers.

    Args:
        sizes: Of the input, the hidden layers and the output.
        activation: Between two layers.
        last_gain: Makes the weights orthogonal, those of the last layer with this gain, and the biases 0 (Engstrom et
            al. 2020, "Implementation matters in deep policy gradients"). By default they are torch's own.

    Example:
        >>> make_mlp([8, 64, 64, 4])(torch.zeros(5, 8)).shape
        torch.Size([5, 4])
    """
    layers = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    if last_gain is not None:
        for layer in layers:
            nn.init.orthogonal_(layer.weight, last_gain if layer is layers[-1] else math.sqrt(2.0))
            nn.init.zeros_(layer.bias)
    behind_hidden = [module for layer in layers[:-1] for module in (layer, activation())]
    return nn.Sequential(*behind_hidden, layers[-1])


class ScaledBytes(nn.Module):
    """Makes pictures of bytes, 0 to 255, float32 from 0 to 1; here, so that all else may move and keep bytes."""

    def forward(self, pictures: Tensor) -> Tensor:
        """Keeps the shape."""
        return pictures.float() / 255.0


def make_cnn(shape: Sequence[int], hidden_size: int, num_outputs: int) -> nn.Sequential:
    """Maps pictures [B, C, H, W] of bytes to [B, num_outputs].

    The layers are those of Mnih et al. 2015, "Human-level control through deep reinforcement learning".

    Args:
        shape: C, H, W; H and W ≥ 36. Of gray pictures, C is the number of stacked frames.
        hidden_size: Units in the layer before the last.
        num_outputs: Such as the number of actions.

    Example:
        >>> make_cnn([4, 84, 84], 512, 6)(torch.zeros(5, 4, 84, 84, dtype=torch.uint8)).shape
        torch.Size([5, 6])
    """
    convolutions = nn.Sequential(
        ScaledBytes(),
        nn.Conv2d(shape[0], 32, kernel_size=8, stride=4),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=4, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, kernel_size=3, stride=1),
        nn.ReLU(),
        nn.Flatten(),
    )
    with torch.no_grad():
        num_features = convolutions(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(*convolutions, *make_mlp([num_features, hidden_size, num_outputs]))
