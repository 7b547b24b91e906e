"""Tensors and distributions as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributions import Distribution, Independent, TransformedDistribution

from rlwandb_callbacks.core.episode import Floats, Gaussian

SAMPLES_FOR_MOMENTS = 64


def softmax(logits: Floats) -> Floats:
    """Computes the softmax over the last axis, shifted by the maximum so that no finite input overflows."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def is_array(value: Any) -> bool:
    """Returns whether a value is a tensor or a numpy array."""
    return isinstance(value, torch.Tensor | np.ndarray)


def to_numpy(value: Any) -> NDArray[Any]:
    """Copies a tensor on any device, or an array, to numpy; bfloat16 becomes float32."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        copied: NDArray[Any] = (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy().copy()
        return copied
    return np.array(value)


def mode_of(distribution: Distribution) -> torch.Tensor:
    """Returns the deterministic action: the mode, else the mean, else the mean of 64 samples.

    A squashed distribution gives the squashed mode of its base distribution (Haarnoja et al. 2018).
    """
    for name in ("mode", "deterministic_sample"):
        found = _tensor_property(distribution, name)
        if found is not None:
            return found
    if isinstance(distribution, Independent):
        return mode_of(distribution.base_dist)
    if isinstance(distribution, TransformedDistribution):
        action = mode_of(distribution.base_dist)
        for transform in distribution.transforms:
            action = transform(action)
        return action
    mean = _tensor_property(distribution, "mean")
    return _samples(distribution).mean(dim=0) if mean is None else mean


def moments_of(distribution: Distribution) -> Gaussian:
    """Returns mean, standard deviation and entropy of a distribution.

    Mean and standard deviation are estimated from 64 samples if the distribution does not implement them. The entropy
    is None if it is not implemented, as for squashed distributions and mixtures.
    """
    mean, std = _tensor_property(distribution, "mean"), _tensor_property(distribution, "stddev")
    if mean is None or std is None:
        samples = _samples(distribution)
        mean, std = samples.mean(dim=0), samples.std(dim=0)
    return Gaussian(to_numpy(mean).astype(np.float64), to_numpy(std).astype(np.float64), _entropy_of(distribution))


def _samples(distribution: Distribution) -> torch.Tensor:
    return distribution.sample(torch.Size([SAMPLES_FOR_MOMENTS])).float()


def _entropy_of(distribution: Distribution) -> Floats | None:
    """Returns the entropy, shape ``[B]``, summed over independent dimensions; None if it is not implemented."""
    try:
        entropy: Any = distribution.entropy()
    except Exception:  # noqa: BLE001  # distributions without an entropy raise errors of any class
        return None
    if not isinstance(entropy, torch.Tensor) or entropy.ndim == 0:
        return None
    return np.asarray(to_numpy(entropy).astype(np.float64).reshape(len(entropy), -1).sum(axis=1))


def _tensor_property(distribution: Distribution, name: str) -> torch.Tensor | None:
    """Reads a property that a distribution may not implement; TorchRL's raise a RuntimeError then."""
    try:
        found = getattr(distribution, name)
    except (NotImplementedError, AttributeError, RuntimeError):
        return None
    return found if isinstance(found, torch.Tensor) else None
