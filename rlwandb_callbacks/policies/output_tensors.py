"""Numbers of tensors and distributions, as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributions import Distribution, Independent, TransformedDistribution

from rlwandb_callbacks.core.episode import Floats, Gaussian

SAMPLES_FOR_MOMENTS = 64


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the last axis, shifted by the maximum so that no finite input overflows.

    Example:
        >>> softmax(np.array([1000.0, 1000.0]))
        array([0.5, 0.5])
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def to_numpy(value: Any) -> NDArray[Any]:
    """Copies a tensor from any device, or an array, to numpy; bfloat16 becomes float32."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        copied: NDArray[Any] = (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy().copy()
        return copied
    return np.array(value)


def mode_of(distribution: Distribution) -> torch.Tensor:
    """The action that a distribution stands for without chance.

    That is its mode; of a squashed distribution the squashed mode of what was squashed, as agents take it (Haarnoja et
    al. 2018); where a distribution does not know its mode, its mean, else the mean of samples.
    """
    for name in ("mode", "deterministic_sample"):
        found = _known(distribution, name)
        if found is not None:
            return found
    if isinstance(distribution, Independent):
        return mode_of(distribution.base_dist)
    if isinstance(distribution, TransformedDistribution):
        moved = mode_of(distribution.base_dist)
        for transform in distribution.transforms:
            moved = transform(moved)
        return moved
    mean = _known(distribution, "mean")
    return distribution.sample(torch.Size([SAMPLES_FOR_MOMENTS])).float().mean(dim=0) if mean is None else mean


def moments_of(distribution: Distribution) -> Gaussian:
    """Mean and standard deviation, from the distribution or, where it does not know them, from samples of it.

    Its entropy comes along where it knows that; squashed distributions and mixtures do not.
    """
    mean, std = _known(distribution, "mean"), _known(distribution, "stddev")
    if mean is None or std is None:
        samples = distribution.sample(torch.Size([SAMPLES_FOR_MOMENTS])).float()
        mean, std = samples.mean(dim=0), samples.std(dim=0)
    return Gaussian(to_numpy(mean).astype(np.float64), to_numpy(std).astype(np.float64), _entropy_of(distribution))


def _entropy_of(distribution: Distribution) -> Floats | None:
    """Shape ``[B]``, that of independent dimensions summed; None where the distribution does not know it."""
    try:
        told: Any = distribution.entropy()
    except Exception:  # noqa: BLE001  # what a distribution without an entropy raises is up to it
        return None
    if not isinstance(told, torch.Tensor) or told.ndim == 0:
        return None
    return np.asarray(to_numpy(told).astype(np.float64).reshape(len(told), -1).sum(axis=1))


def _known(distribution: Distribution, name: str) -> torch.Tensor | None:
    """A property that a distribution may lack; TorchRL's say so by a RuntimeError."""
    try:
        found = getattr(distribution, name)
    except (NotImplementedError, AttributeError, RuntimeError):
        return None
    return found if isinstance(found, torch.Tensor) else None
