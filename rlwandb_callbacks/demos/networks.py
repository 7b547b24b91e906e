"""Networks of the demos. In shapes, B is the batch size."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's CPU generator within the context and restores its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def make_mlp(
    sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU, *, last_gain: float | None = None
) -> nn.Sequential:
    """Makes a fully connected network from [B, sizes[0]] float32 to [B, sizes[-1]].

    Args:
        sizes: Sizes of the input, the hidden layers and the output.
        activation: Activation between two layers.
        last_gain: Gain of the orthogonal initialization of the last layer; the hidden layers then have gain √2, and
            biases are 0 (Engstrom et al. 2020, "Implementation matters in deep policy gradients"). None keeps torch's
            default initialization.

    Example:
        >>> make_mlp([8, 64, 64, 4])(torch.zeros(5, 8)).shape
        torch.Size([5, 4])
    """
    layers = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    if last_gain is not None:
        for layer in layers:
            nn.init.orthogonal_(layer.weight, last_gain if layer is layers[-1] else math.sqrt(2.0))
            nn.init.zeros_(layer.bias)
    hidden = [module for layer in layers[:-1] for module in (layer, activation())]
    return nn.Sequential(*hidden, layers[-1])


class ScaledBytes(nn.Module):
    """Layer from uint8 images, 0 to 255, to float32, 0 to 1, so that images are stored and moved as bytes."""

    def forward(self, images: Tensor) -> Tensor:
        """Keeps the shape."""
        return images.float() / 255.0


def make_cnn(shape: Sequence[int], hidden_size: int, num_outputs: int) -> nn.Sequential:
    """Makes a network from uint8 images [B, C, H, W] to [B, num_outputs].

    The layers are those of Mnih et al. 2015, "Human-level control through deep reinforcement learning".

    Args:
        shape: C, H, W; H and W ≥ 36. For grayscale images, C is the number of stacked frames.
        hidden_size: Units in the layer before the last.
        num_outputs: Number of outputs, such as the number of actions.

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
