"""Mode, moments and entropy of distributions, also of classes that override only how they sample.

A subclass such as ``class TanhNormal(Normal)`` with its own ``rsample`` inherits ``mode``, ``mean``, ``stddev`` and
``entropy`` of the unsquashed distribution. A property is used only if the class that samples, or one derived from it,
defines it. Otherwise the class is treated as a function of its base: the random part of a copy is replaced by chosen
values of the base, and sampling the copy gives their image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution

from rlwandb_callbacks.core.episode import Floats, Gaussian
from rlwandb_callbacks.policies.output_tensors import to_numpy

SAMPLES_FOR_MOMENTS = 256
SAMPLES_FOR_ENTROPY = 64
_SAMPLERS = ("sample", "rsample")
_LIBRARIES = ("torch.", "torchrl.")  # their classes define what differs from their bases


def sample_of(distribution: Distribution) -> Tensor:
    """Returns one sample, by ``rsample`` if a class overrides only that."""
    if type(distribution) is Independent:
        return sample_of(distribution.base_dist)
    return _sampler(distribution)()


def mode_of(distribution: Distribution) -> Tensor:
    """Returns the deterministic action: the mode, else the mean, else the mean of 256 samples with fixed noise.

    A squashed distribution gives the squashed mode of its base distribution (Haarnoja et al. 2018).
    """
    if type(distribution) is Independent:
        return mode_of(distribution.base_dist)
    for name in ("mode", "deterministic_sample"):
        found = _property(distribution, name)
        if found is not None:
            return found
    if isinstance(distribution, TransformedDistribution) and not is_overridden(distribution):
        action = mode_of(distribution.base_dist)
        for transform in distribution.transforms:
            action = transform(action)
        return action
    mean = _property(distribution, "mean")
    if mean is not None:
        return mean
    image = _Image.of(distribution) if is_overridden(distribution) else None
    if image is not None:
        return image(mode_of(image.base))
    with torch.random.fork_rng(devices=[]):  # so that the action is the same whenever it is asked for
        torch.default_generator.manual_seed(0)
        samples = _samples(distribution).float()
    return _agreeing_base_mode(distribution, samples)


def moments_of(distribution: Distribution) -> Gaussian:
    """Returns mean, standard deviation and entropy of a distribution.

    Mean and standard deviation are estimated from 256 samples if the distribution does not implement them. The entropy
    is None if it is not implemented, as for squashed distributions and mixtures, and cannot be derived from the base.
    """
    if type(distribution) is Independent:
        return moments_of(distribution.base_dist)
    mean, std = _property(distribution, "mean"), _stddev(distribution)
    if mean is None or std is None:
        samples = _samples(distribution).float()
        mean, std = samples.mean(dim=0), samples.std(dim=0)
    return Gaussian(to_numpy(mean).astype(np.float64), to_numpy(std).astype(np.float64), _entropy_of(distribution))


def probabilities_of(distribution: Any) -> Tensor:
    """Returns ``probs``, or the frequencies in 256 samples where an overridden sampling method disagrees with it."""
    probs: Tensor = distribution.probs
    if not is_overridden(distribution) or _is_trusted(distribution, "probs"):
        return probs
    samples = _samples(distribution)
    if samples.numel() == len(samples) * probs.numel():
        frequencies = samples.float().mean(dim=0).reshape(probs.shape)
    elif samples.numel() * probs.shape[-1] == len(samples) * probs.numel():
        indices = samples.long().reshape(len(samples), *probs.shape[:-1])
        frequencies = torch.nn.functional.one_hot(indices, probs.shape[-1]).float().mean(dim=0)
    else:
        return probs
    tolerance = 5 * (probs * (1 - probs) / len(samples)).sqrt() + 1 / len(samples)
    return probs if bool(((frequencies - probs).abs() <= tolerance).all()) else frequencies.to(probs.dtype)


def override_note(distribution: Distribution) -> str | None:
    """Describes how a distribution is read whose sampling is overridden without its mode; None for others."""
    while type(distribution) is Independent:
        distribution = distribution.base_dist
    if not is_overridden(distribution) or _is_trusted(distribution, "mode"):
        return None
    if _property(distribution, "deterministic_sample") is not None or hasattr(distribution, "probs"):
        return None
    sampling_class = _sampling_class(distribution).__name__
    if _property(distribution, "mean") is not None:
        done = "its own mean"
    elif (image := _Image.of(distribution)) is not None:
        done = f"the mode of {type(image.base).__name__}, passed through {sampling_class}'s sampling method"
    else:
        done = "the mean of 256 samples, unless the mean of the base class agrees with it"
    return (
        f"{sampling_class} overrides how it samples and defines no mode, so that the inherited mode, mean and entropy "
        f"may be those of another distribution. The deterministic action is {done}. Define `mode` in {sampling_class} "
        "to choose it."
    )


def is_overridden(distribution: Distribution) -> bool:
    """Returns whether a class outside of the known libraries defines how the distribution samples."""
    return not _sampling_class(distribution).__module__.startswith(_LIBRARIES)


def _defining_position(distribution: Distribution, name: str) -> int:
    """Returns the position in the method resolution order of the class that defines an attribute."""
    mro = type(distribution).__mro__
    return next((index for index, cls in enumerate(mro) if name in vars(cls)), len(mro))


def _sampling_class(distribution: Distribution) -> type:
    return type(distribution).__mro__[_sampling_position(distribution)]


def _sampling_position(distribution: Distribution) -> int:
    """Returns the position of the class that samples among the classes that a distribution derives from."""
    return min(_defining_position(distribution, name) for name in _SAMPLERS)


def _sampler(distribution: Distribution) -> Callable[..., Tensor]:
    by_rsample = _defining_position(distribution, "rsample") < _defining_position(distribution, "sample")
    sampler: Callable[..., Tensor] = getattr(
        distribution, "rsample" if by_rsample and is_overridden(distribution) else "sample"
    )
    return sampler


def _is_trusted(distribution: Distribution, name: str) -> bool:
    if not is_overridden(distribution):
        return True
    return _defining_position(distribution, name) <= _sampling_position(distribution)


def _property(distribution: Distribution, name: str) -> Tensor | None:
    """Reads a trusted property, or method without parameters; TorchRL's raise a RuntimeError if not implemented."""
    if not _is_trusted(distribution, name):
        return None
    try:
        found: Any = getattr(distribution, name)
        found = found() if callable(found) else found
    except (NotImplementedError, AttributeError, RuntimeError, TypeError):
        return None
    return found if isinstance(found, Tensor) else None


def _stddev(distribution: Distribution) -> Tensor | None:
    found = _property(distribution, "stddev")
    if found is None and (variance := _property(distribution, "variance")) is not None:
        return variance.sqrt()
    return found


def _samples(distribution: Distribution, count: int = SAMPLES_FOR_MOMENTS) -> Tensor:
    """Draws samples ``[count, …]``, also from a distribution that ignores or does not take a shape."""
    sampler = _sampler(distribution)
    with torch.no_grad():
        shape = (count, *sampler().shape)
        try:
            many: Any = sampler(torch.Size([count]))
        except (TypeError, ValueError, RuntimeError):
            many = None
        if isinstance(many, Tensor) and many.shape == shape:
            return many
        image = _Image.of(distribution)
        images = None if image is None else image(_samples(image.base, count))
        if images is not None and images.shape == shape:
            return images
        return torch.stack([sampler() for _ in range(count)])


def _agreeing_base_mode(distribution: Distribution, samples: Tensor) -> Tensor:
    """Returns the mode that a base class defines if its mean agrees with that of the samples, else the latter."""
    mean = samples.mean(dim=0)
    base = _as_base_class(distribution) if is_overridden(distribution) else None
    expected = None if base is None else _property(base, "mean")
    if base is None or expected is None or expected.shape != mean.shape:
        return mean
    tolerance = 5 * samples.std(dim=0) / len(samples) ** 0.5 + 1e-6
    return mode_of(base) if bool(((mean - expected).abs() <= tolerance).all()) else mean


def _as_base_class(distribution: Distribution) -> Distribution | None:
    """Returns the distribution as an instance of the class whose sampling is overridden; None if it is abstract."""
    mro = type(distribution).__mro__
    base = mro[mro.index(_sampling_class(distribution)) + 1]
    if not issubclass(base, Distribution) or base is Distribution:
        return None
    view = copy.copy(distribution)
    view.__class__ = base
    return view


@dataclass(frozen=True)
class _Image:
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
    def of(distribution: Distribution) -> _Image | None:
        """Finds the base; None if the samples do not depend on the base alone."""
        base, attribute = _as_base_class(distribution), None
        if base is None:
            contained = [name for name, value in vars(distribution).items() if isinstance(value, Distribution)]
            if len(contained) != 1:
                return None
            attribute = contained[0]
            base = vars(distribution)[attribute]
        image = _Image(distribution, base, attribute)
        try:
            points = _samples(base, 2)
            first, second, swapped = image(points), image(points), image(points.flip(0))
        except Exception:  # noqa: BLE001  # the class is a user's
            return None
        return image if torch.equal(first, second) and torch.equal(swapped, first.flip(0)) else None

    def __call__(self, points: Tensor) -> Tensor:
        """Returns the image of points of the base distribution."""

        def constant(_self: Any, *_args: Any, **_keywords: Any) -> Tensor:
            return points

        fixed: dict[str, Any] = dict.fromkeys(_SAMPLERS, constant)
        moved = copy.copy(self.distribution)
        if self.attribute is None:
            base_class = type("_Constant", (type(self.base),), fixed)
            moved.__class__ = type("_Moved", (type(self.distribution), base_class), {})
        else:
            contained = copy.copy(self.base)
            contained.__class__ = type("_Constant", (type(self.base),), fixed)
            vars(moved)[self.attribute] = contained
        sampled: Tensor = getattr(moved, _sampler(self.distribution).__name__)()
        return sampled

    def entropy(self) -> Floats | None:
        """Returns the entropy of the base plus the mean logarithm of the volume change, shape ``[B]``, in nats."""
        base = _entropy_of(self.base)
        try:
            volume = self._log_volume_change()
        except Exception:  # noqa: BLE001  # the class is a user's, and need not be differentiable
            return None
        return None if base is None or volume is None else _finite_mean(base + volume)

    def _log_volume_change(self) -> Floats | None:
        """Returns the logarithm of the absolute Jacobian determinant, shape ``[samples, B]``, in double precision."""
        with torch.inference_mode(False), torch.enable_grad():
            points = _samples(self.base, SAMPLES_FOR_ENTROPY).clone().double().requires_grad_()
            images = self(points)
            if images.shape != points.shape or points.ndim < 2 or not images.requires_grad:
                return None
            flat = images.reshape(*images.shape[:2], -1)
            rows = [torch.autograd.grad(part.sum(), points, retain_graph=True)[0] for part in flat.unbind(dim=-1)]
        jacobian = torch.stack([row.reshape(flat.shape) for row in rows], dim=-2)
        return to_numpy(torch.linalg.slogdet(jacobian).logabsdet)


def _entropy_of(distribution: Distribution) -> Floats | None:
    """Returns the entropy, shape ``[B]``, summed over independent dimensions; None if it is not known."""
    if _is_trusted(distribution, "entropy"):
        try:
            entropy: Any = distribution.entropy()
        except Exception:  # noqa: BLE001  # distributions without an entropy raise errors of any class
            entropy = None
        if isinstance(entropy, Tensor) and entropy.ndim > 0:
            return np.asarray(to_numpy(entropy).astype(np.float64).reshape(len(entropy), -1).sum(axis=1))
    if not is_overridden(distribution):
        return None
    image = _Image.of(distribution)
    found = None if image is None else image.entropy()
    if found is not None or not _is_trusted(distribution, "log_prob"):
        return found
    try:
        samples = _samples(distribution)
        log_prob = to_numpy(distribution.log_prob(samples)).astype(np.float64)
    except Exception:  # noqa: BLE001  # as above
        return None
    return _finite_mean(-log_prob.reshape(*log_prob.shape[:2], -1).sum(axis=-1)) if log_prob.ndim > 1 else None


def _finite_mean(values: Floats) -> Floats | None:
    """Returns the mean over the first axis; None if a value is not finite."""
    return np.asarray(values.mean(axis=0)) if values.size and np.isfinite(values).all() else None
