"""What each adapter needs of networks: their device and type, evaluation mode, observations as tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn


def network_of(policy: Any) -> nn.Module | None:
    """The network that a policy is, or is a method of."""
    owner = getattr(policy, "__self__", policy)
    return owner if isinstance(owner, nn.Module) else None


@contextlib.contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """Runs a block with a network in evaluation mode, and puts back the mode of each of its parts.

    Networks that are no part of the LightningModule are in whatever mode they were left in.
    """
    modes = {part: part.training for part in network.modules()} if isinstance(network, nn.Module) else {}
    if isinstance(network, nn.Module) and any(modes.values()):
        network.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def parameter_like(*networks: nn.Module | None) -> torch.Tensor:
    """The first floating-point parameter of the first network that has one; a tensor on the CPU where none has."""
    found = (p for network in networks if network is not None for p in network.parameters() if p.is_floating_point())
    return next(found, torch.empty(0))


def to_tensors(observations: Any, like: torch.Tensor) -> Any:
    """Puts a batch of observations on a device.

    Args:
        observations: As ``gymnasium.vector`` batches them: an array, or dicts and tuples of arrays. What holds no
            numbers (text) stays as it is.
        like: Gives the device, and the type of floating-point numbers; other numbers keep theirs.

    Example:
        >>> to_tensors({"pose": np.zeros((2, 3))}, torch.empty(0))["pose"].dtype
        torch.float32
    """
    if isinstance(observations, dict):
        return {key: to_tensors(value, like) for key, value in observations.items()}
    if isinstance(observations, tuple):
        parts = [to_tensors(value, like) for value in observations]
        return type(observations)(*parts) if hasattr(observations, "_fields") else tuple(parts)  # graphs have names
    array = np.asarray(observations)
    if array.dtype.kind not in "biuf":
        return observations
    return torch.as_tensor(array, device=like.device, dtype=like.dtype if array.dtype.kind == "f" else None)


def batch_size_of(observations: Any, space: Any = None) -> int:
    """Number of observations in a batch, as ``gymnasium.vector`` makes it.

    Args:
        observations: The batch.
        space: Of one observation. Without it a tuple is taken for the parts of a ``Tuple``; texts, sequences and graphs
            are batched as tuples as well.
    """
    if isinstance(observations, dict):
        key = next(iter(observations))
        return batch_size_of(observations[key], space[key] if isinstance(space, spaces.Dict) else None)
    if isinstance(space, spaces.Tuple):
        return batch_size_of(observations[0], space[0])
    if space is None and isinstance(observations, tuple) and not isinstance(observations[0], str):
        return batch_size_of(observations[0])
    return len(observations)
