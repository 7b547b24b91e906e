"""Samples of distributions, low-discrepancy points, and distributions as images of a base distribution.

A class that overrides only how it samples is treated as a function of its base: the random part of a copy is replaced
by chosen values of the base, and sampling the copy gives their image.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)
from torch.quasirandom import SobolEngine

from rlwandb_callbacks.core.episode import Floats
from rlwandb_callbacks.policies.distribution_classes import (
    SAMPLERS,
    as_base_class,
    device_of,
    is_overridden,
    sampler_of,
)
from rlwandb_callbacks.policies.output_tensors import to_numpy

SAMPLES = 256
_IMAGE_POINTS = 64  # each costs a backward pass through the sampling method for every dimension


@contextmanager
def forked_noise(distribution: Distribution, *, seed: int | None = None) -> Iterator[None]:
    """Restores torch's random states at exit, so that sampled actions do not depend on what is estimated from samples.

    With a seed the noise is the same each time; without, it continues from the present state.
    """
    device = device_of(distribution)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        if seed is not None and devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def points_of(distribution: Distribution, count: int = SAMPLES, *, shared: tuple[int, ...] = (0,)) -> Tensor:
    """Returns points ``[count, …]`` over which a mean is close to the expectation.

    They are low-discrepancy points where samples are a known function of uniform or Gaussian noise: the error of a mean
    is then about a tenth of that of as many samples. Otherwise they are samples.

    Args:
        distribution: The distribution.
        count: Number of points, a power of 2.
        shared: Axes of one sample along which the noise is the same: by default that of the batch.
    """
    with torch.no_grad():
        if not is_overridden(distribution):
            try:
                points = _low_discrepancy_points(distribution, count, shared)
            except Exception:  # noqa: BLE001  # what a distribution does not implement raises errors of any class
                points = None
            if points is not None:
                return points
        return samples_of(distribution, count)


def _low_discrepancy_points(distribution: Any, count: int, shared: tuple[int, ...]) -> Tensor | None:
    if isinstance(distribution, Independent):
        return points_of(distribution.base_dist, count, shared=shared)
    if isinstance(distribution, TransformedDistribution):
        points = points_of(distribution.base_dist, count, shared=shared)
        for transform in distribution.transforms:
            points = transform(points)
        return points
    if isinstance(distribution, MixtureSameFamily):
        return _points_of_mixture(distribution, count)
    shape = distribution.batch_shape + distribution.event_shape
    sizes = [1 if axis in shared else size for axis, size in enumerate(shape)]
    uniform, gaussian = _noise(count, math.prod(sizes))
    like: Tensor = next(value for value in vars(distribution).values() if isinstance(value, Tensor))
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32  # not a half precision
    if type(distribution) is Normal:
        return distribution.loc + distribution.scale * gaussian.reshape(count, *sizes).to(like.device, dtype)
    if isinstance(distribution, MultivariateNormal):
        noise = gaussian.reshape(count, *sizes, 1).to(like.device, dtype)
        return distribution.loc + (distribution.scale_tril @ noise).squeeze(-1)
    if distribution.event_shape:
        return None
    quantiles: Tensor = distribution.icdf(uniform.reshape(count, *sizes).to(like.device, dtype).expand(count, *shape))
    return quantiles


@functools.lru_cache(maxsize=32)
def _noise(count: int, dimensions: int) -> tuple[Tensor, Tensor]:
    """Returns low-discrepancy points in the unit cube, ``[count, dimensions]``, and their Gaussian quantiles.

    A scrambled Sobol sequence has one point in each of ``count`` intervals of a dimension; it is moved to the center.
    """
    with torch.inference_mode(False):  # the points are kept, and may be used where gradients are taken
        engine: Any = SobolEngine  # it has no types
        points: Tensor = engine(dimensions, scramble=True, seed=0).draw(count, dtype=torch.float64)
        uniform = ((points * count).floor() + 0.5) / count
        return uniform, torch.special.ndtri(uniform)


def _points_of_mixture(distribution: MixtureSameFamily, count: int) -> Tensor:
    """Takes from each component as many of its points as its weight says."""
    weights: Tensor = distribution.mixture_distribution.probs
    batch_shape = weights.shape[:-1]
    strata = _latin_hypercube(count, math.prod(batch_shape[1:]))
    strata = strata.reshape(count, *(1 for _ in batch_shape[:1]), *batch_shape[1:], 1).to(weights)
    chosen = (strata > weights.cumsum(dim=-1)).sum(dim=-1, keepdim=True).clamp(max=weights.shape[-1] - 1)
    axis = len(batch_shape)
    points = points_of(distribution.component_distribution, count, shared=(0, axis))
    index = chosen.reshape(*chosen.shape, *(1 for _ in distribution.event_shape))
    return points.take_along_dim(index, dim=axis + 1).squeeze(axis + 1)


@functools.lru_cache(maxsize=32)
def _latin_hypercube(count: int, dimensions: int) -> Tensor:
    """Returns evenly spaced numbers in (0, 1), ``[count, dimensions]``, each dimension in an order of its own."""
    with torch.inference_mode(False):
        generator = torch.Generator().manual_seed(0)
        orders = [torch.randperm(count, generator=generator) for _ in range(dimensions)]
        return (torch.stack(orders, dim=1).double() + 0.5) / count


def samples_of(distribution: Distribution, count: int = SAMPLES) -> Tensor:
    """Draws samples ``[count, …]``, also from a distribution that ignores or does not take a shape."""
    sampler = sampler_of(distribution)
    with forked_noise(distribution):
        shape = (count, *sampler().shape)
        try:
            many: Any = sampler(torch.Size([count]))
        except (TypeError, ValueError, RuntimeError):
            many = None
        if isinstance(many, Tensor) and many.shape == shape:
            return many
        image = Image.of(distribution)
        # The image of many points of the base is faster than many calls.
        images = None if image is None else image(samples_of(image.base, count))
        if images is not None and images.shape == shape:
            return images
        return torch.stack([sampler() for _ in range(count)])


@dataclass(frozen=True)
class Image:
    """A distribution as the image of a base distribution under the function in which its sampling method differs.

    Args:
        distribution: The distribution.
        base: It as an instance of the class whose sampling it overrides, or the one distribution that it contains.
        attribute: Name of the contained distribution; None for the base class.
    """

    distribution: Distribution
    base: Distribution
    attribute: str | None

    @staticmethod
    def of(distribution: Distribution) -> Image | None:
        """Finds the base; None if the samples do not depend on the base alone."""
        base, attribute = as_base_class(distribution), None
        if base is None:
            contained = [name for name, value in vars(distribution).items() if isinstance(value, Distribution)]
            if len(contained) != 1:
                return None
            attribute = contained[0]
            base = vars(distribution)[attribute]
        image = Image(distribution, base, attribute)
        try:
            points = samples_of(base, 2)
            with forked_noise(distribution):
                first, second, swapped = image(points), image(points), image(points.flip(0))
        except Exception:  # noqa: BLE001  # the class is a user's
            return None
        return image if torch.equal(first, second) and torch.equal(swapped, first.flip(0)) else None

    def __call__(self, points: Tensor) -> Tensor:
        """Returns the image of points of the base distribution."""

        def constant(_self: Any, *_args: Any, **_keywords: Any) -> Tensor:
            return points

        fixed: dict[str, Any] = dict.fromkeys(SAMPLERS, constant)
        moved = copy.copy(self.distribution)
        if self.attribute is None:
            base_class = type("_Constant", (type(self.base),), fixed)
            moved.__class__ = type("_Moved", (type(self.distribution), base_class), {})
        else:
            contained = copy.copy(self.base)
            contained.__class__ = type("_Constant", (type(self.base),), fixed)
            vars(moved)[self.attribute] = contained
        sampled: Tensor = getattr(moved, sampler_of(self.distribution).__name__)()
        return sampled

    def log_volume_change(self) -> Floats | None:
        """Returns the mean logarithm of the absolute Jacobian determinant, shape ``[B]``, in double precision.

        None if the dimension changes, or the image is not differentiable.
        """
        try:
            jacobian = self._jacobian()
        except Exception:  # noqa: BLE001  # the class is a user's, and need not be differentiable
            return None
        return None if jacobian is None else to_numpy(torch.linalg.slogdet(jacobian).logabsdet.mean(dim=0))

    def _jacobian(self) -> Tensor | None:
        """Returns the Jacobian at points of the base, shape ``[points, B, D, D]``."""
        with torch.inference_mode(False), torch.enable_grad():
            points = points_of(self.base, _IMAGE_POINTS).clone().double().requires_grad_()
            images = self(points)
            if images.shape != points.shape or points.ndim < 2 or not images.requires_grad:
                return None
            flat = images.reshape(*images.shape[:2], -1)
            rows = [torch.autograd.grad(part.sum(), points, retain_graph=True)[0] for part in flat.unbind(dim=-1)]
        return torch.stack([row.reshape(flat.shape) for row in rows], dim=-2)
