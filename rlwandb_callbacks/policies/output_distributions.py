"""Moments and probabilities of the distributions that policies output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
    VonMises,
)

from rlwandb_callbacks.core.episode import Gaussian
from rlwandb_callbacks.policies.distribution_classes import (
    bounds_of,
    device_of,
    is_discrete,
    is_overridden,
    is_trusted,
    property_of,
    sample_of,
)
from rlwandb_callbacks.policies.distribution_entropy import entropy_of
from rlwandb_callbacks.policies.distribution_modes import mode_of
from rlwandb_callbacks.policies.distribution_samples import points_of, samples_of
from rlwandb_callbacks.policies.output_tensors import to_numpy


def unwrapped(output: Any) -> Any:
    """Returns the distribution, or a list of them, inside one of Stable-Baselines3's distributions; None for others.

    A Gaussian that these squash with tanh is transformed likewise.
    """
    inside = getattr(output, "distribution", None)
    is_squashed = hasattr(output, "gaussian_actions") or getattr(output, "bijector", None) is not None
    return TransformedDistribution(inside, [TanhTransform()]) if is_squashed and isinstance(inside, Normal) else inside


def action_of(distribution: Any, *, deterministic: bool) -> Any:
    """Returns the deterministic action or a sample; a dict of them for the parts of a ``CompositeDistribution``."""
    parts = getattr(distribution, "dists", None)  # tensordict's CompositeDistribution
    if isinstance(parts, Mapping):
        return {name: action_of(part, deterministic=deterministic) for name, part in parts.items()}
    return mode_of(distribution) if deterministic else sample_of(distribution)


def moments_of(distribution: Distribution) -> Gaussian:
    """Returns mean, standard deviation and entropy of a distribution.

    Mean and standard deviation are estimated from 256 points if the distribution does not implement them. The entropy
    is NaN where it is not known.
    """
    while type(distribution) is Independent:
        distribution = distribution.base_dist
    mean, std = property_of(distribution, "mean"), _stddev(distribution)
    is_inaccurate = mean is not None and _is_outside(distribution, mean)
    if mean is None or std is None or is_inaccurate:
        points = points_of(distribution).float()
        mean, std = points.mean(dim=0), points.std(dim=0)
    entropy = None if is_inaccurate else entropy_of(distribution)
    if entropy is None or len(entropy) != len(mean):
        entropy = np.full(len(mean), np.nan)
    return Gaussian(to_numpy(mean).astype(np.float64), to_numpy(std).astype(np.float64), entropy)


def _is_outside(distribution: Distribution, mean: Tensor) -> bool:
    """Returns whether a mean is outside of the bounds, as that of TorchRL's TruncatedNormal far from its peak."""
    bounds = bounds_of(distribution)
    return bounds is not None and bool(((mean < bounds[0]) | (mean > bounds[1])).any())


def _stddev(distribution: Distribution) -> Tensor | None:
    if isinstance(distribution, VonMises):
        return None  # it is a circular one, not that of actions
    found = property_of(distribution, "stddev")
    if found is None and (variance := property_of(distribution, "variance")) is not None:
        return variance.sqrt()
    return found


def probabilities_of(distribution: Any, options: int | None = None) -> Tensor:
    """Returns the probabilities of all options, in their order, along the last axis.

    They are ``probs``. If the distribution has ``probs`` for some of the options only, those of the others are 0. Where
    an overridden sampling method disagrees with ``probs``, they are the frequencies in 256 samples.

    Args:
        distribution: The distribution.
        options: Number of options; None if it is not known.
    """
    distribution = getattr(distribution, "masked_dist", distribution)  # TorchRL's LLMMaskedCategorical
    probs: Tensor = distribution.probs
    if getattr(distribution, "_sparse_mask", False):
        return _over_all_options(distribution)
    if options is not None and probs.ndim == 2 and probs.shape[-1] != options:
        return _by_log_prob(distribution, options)
    if not is_overridden(distribution) or is_trusted(distribution, "probs"):
        return probs
    samples = samples_of(distribution)
    if samples.numel() == len(samples) * probs.numel():
        frequencies = samples.float().mean(dim=0).reshape(probs.shape)
    elif samples.numel() * probs.shape[-1] == len(samples) * probs.numel():
        indices = samples.long().reshape(len(samples), *probs.shape[:-1])
        frequencies = torch.nn.functional.one_hot(indices, probs.shape[-1]).float().mean(dim=0)
    else:
        return probs
    tolerance = 5 * (probs * (1 - probs) / len(samples)).sqrt() + 1 / len(samples)
    return probs if bool(((frequencies - probs).abs() <= tolerance).all()) else frequencies.to(probs.dtype)


def _by_log_prob(distribution: Any, options: int) -> Tensor:
    """Returns ``exp(log_prob)`` of each option if that is a distribution over the options, else ``probs``."""
    probs: Tensor = distribution.probs
    values = [torch.full((len(probs),), option, device=probs.device) for option in range(options)]
    try:
        found = torch.stack([distribution.log_prob(value) for value in values], dim=-1).exp()
    except Exception:  # noqa: BLE001  # ``log_prob`` of a value outside of the support raises errors of any class
        return probs
    return found if found.shape == (len(probs), options) and _is_complete(found) else probs


def is_over_integers(distribution: Distribution) -> bool:
    """Returns whether the values are integers whose probabilities are no columns of ``probs``, as those of a Poisson.

    ``probs`` of a Bernoulli or Binomial distribution has one number for each row of the batch.
    """
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    probs = getattr(distribution, "probs", None)
    return is_discrete(distribution) and (probs is None or probs.shape == distribution.batch_shape)


def probabilities_of_integers(distribution: Distribution, integers: range, batch_size: int) -> Tensor | None:
    """Returns ``exp(log_prob)`` of each integer, shape ``[B, integers]``; None if others have a probability too."""
    if not is_trusted(distribution, "log_prob"):
        return None
    shape, device = distribution.batch_shape + distribution.event_shape, device_of(distribution)
    values = [torch.full(shape, float(integer), device=device) for integer in integers]
    try:
        columns = [_probability(distribution, value) for value in values]
    except Exception:  # noqa: BLE001  # what a distribution does not implement raises errors of any class
        return None
    if any(column.numel() != batch_size for column in columns):
        return None
    found = torch.stack([column.reshape(batch_size) for column in columns], dim=-1)
    return found if _is_complete(found) else None


def _probability(distribution: Any, value: Tensor) -> Tensor:
    """Returns ``exp(log_prob)``, 0 outside of the support, where ``log_prob`` raises or returns any number."""
    is_inside: Tensor = distribution.support.check(value)
    return (
        torch.where(is_inside, distribution.log_prob(value).exp(), 0.0) if bool(is_inside.any()) else is_inside.float()
    )


def _is_complete(probabilities: Tensor) -> bool:
    return bool(((probabilities.sum(dim=-1) - 1).abs() < 1e-3).all())


def _over_all_options(distribution: Any) -> Tensor:
    """Returns the probabilities of all options from those of a TorchRL ``MaskedCategorical(indices=...)``.

    Its ``probs`` have one column for each of the ``indices``, while samples, mode and ``log_prob`` count all options.
    Padding has no probability, and may be an index that does not exist.
    """
    probs: Tensor = distribution.probs
    indices = distribution._mask.expand_as(probs)  # noqa: SLF001  # no public attribute has the indices
    options = probs.new_zeros(*probs.shape[:-1], distribution.num_samples)
    return options.scatter_add(-1, indices.clamp(0, distribution.num_samples - 1), probs)
