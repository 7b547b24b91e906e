"""Deterministic actions of distributions: values that a policy takes with a high density, never NaN.

The mode of a density may lie where it is infinite or at the edge of the support, as that of Beta(0.2, 0.9) at 1, where
hardly any sample lies; it may not exist, as that of a uniform density; and the mean of a mixture may lie between its
peaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Kumaraswamy,
    MixtureSameFamily,
    TransformedDistribution,
    Weibull,
    constraints,
)
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.distribution_classes import (
    as_base_class,
    bounds_of,
    defining_class,
    describe,
    device_of,
    has_nan_parameters,
    is_discrete,
    is_overridden,
    is_trusted,
    property_of,
    sampling_class_of,
)
from rlwandb_callbacks.policies.distribution_samples import Image, forked_noise, points_of

_RARE_NATS = 3.0  # a density 20 times lower


def mode_of(distribution: Distribution) -> Tensor:
    """Returns the deterministic action.

    It is ``deterministic_sample``, as TorchRL's distributions define it; else the mode, if it is finite and inside the
    support; else the mean, the median, a mode at the edge of the support, or the mean of 256 points, whichever is
    finite. Independent dimensions are decided one by one. A mixture gives the action of its heaviest component, a
    squashed distribution the squashed action of its base (Haarnoja et al. 2018), and a distribution over integers its
    most likely value: for a mixture with infinitely many values, the most likely of the modes of its components.

    Raises:
        PolicyError: If none of these is finite.
    """
    if type(distribution) is Independent:
        return mode_of(distribution.base_dist)
    with torch.no_grad():
        action = _structural_action(distribution)
        if action is None or not bool(action.isfinite().all()):
            action = _first_valid(distribution)
        return _within_bounds(distribution, action)


def override_note(distribution: Distribution) -> str | None:
    """Describes how a distribution is read whose sampling is overridden without its mode; None for others."""
    while type(distribution) is Independent:
        distribution = distribution.base_dist
    if not is_overridden(distribution) or is_trusted(distribution, "mode"):
        return None
    if property_of(distribution, "deterministic_sample") is not None or hasattr(distribution, "probs"):
        return None
    sampling_class = sampling_class_of(distribution).__name__
    if property_of(distribution, "mean") is not None:
        done = "its own mean"
    elif (image := Image.of(distribution)) is not None:
        done = f"the mode of {type(image.base).__name__}, passed through {sampling_class}'s sampling method"
    else:
        done = (
            "the mean of 256 samples, unless the mean of the base class agrees with it, or the densest of them where "
            "log_prob is far lower at the mean"
        )
    return (
        f"{sampling_class} overrides how it samples and defines no mode, so that the inherited mode, mean and entropy "
        f"may be those of another distribution. The deterministic action is {done}. Define `mode` in {sampling_class} "
        "to choose it."
    )


def _structural_action(distribution: Distribution) -> Tensor | None:
    """Returns the action of a distribution that defines it itself, or is built from others; None for others."""
    action = _deterministic_sample(distribution)
    if action is not None or is_overridden(distribution) or property_of(distribution, "mode") is not None:
        return action
    if isinstance(distribution, MixtureSameFamily):
        return _action_of_mixture(distribution)
    if isinstance(distribution, ExpRelaxedCategorical):  # without noise; a mean of points is outside of its support
        return (distribution.logits / distribution.temperature).log_softmax(dim=-1)
    if isinstance(distribution, TransformedDistribution):
        action = mode_of(distribution.base_dist)
        for transform in distribution.transforms:
            action = transform(action)
    return action


def _deterministic_sample(distribution: Distribution) -> Tensor | None:
    """Returns ``deterministic_sample`` of a class that defines it.

    torch's classes define none. Importing tensordict adds it to some, with values at corners of an open support.
    """
    if _is_of_torch(defining_class(distribution, "deterministic_sample")):
        return None
    return property_of(distribution, "deterministic_sample")


def _is_of_torch(cls: type) -> bool:
    return cls.__module__.startswith("torch.distributions")


def _action_of_mixture(distribution: MixtureSameFamily) -> Tensor | None:
    """Returns the action of the heaviest component; of a mixture over integers the most likely value."""
    if not is_discrete(distribution):
        return _action_of_heaviest_component(distribution)
    if has_nan_parameters(distribution):
        return None
    axis = len(distribution.batch_shape)
    try:  # the values of all components are the same
        values = distribution.component_distribution.enumerate_support().select(1 + axis, 0)
    except (NotImplementedError, ValueError, RuntimeError):  # they are infinitely many, or differ
        values = mode_of(distribution.component_distribution).movedim(axis, 0)
    return _densest(distribution, values)


def _action_of_heaviest_component(distribution: MixtureSameFamily) -> Tensor:
    weights: Tensor = distribution.mixture_distribution.probs
    actions, axis = mode_of(distribution.component_distribution), weights.ndim - 1
    index = weights.argmax(dim=-1, keepdim=True)
    index = index.reshape(*index.shape, *(1 for _ in range(actions.ndim - index.ndim)))
    return actions.take_along_dim(index, dim=axis).squeeze(axis)


def _within_bounds(distribution: Distribution, action: Tensor) -> Tensor:
    """Clamps to the bounds of a truncated distribution: TorchRL's mean is outside if the peak is far outside."""
    bounds = bounds_of(distribution)
    return action if bounds is None else torch.minimum(torch.maximum(action, bounds[0]), bounds[1])


def _first_valid(distribution: Distribution) -> Tensor:
    """Returns for each event, a dimension or several that depend on each other, the first candidate that is finite."""
    action: Tensor | None = None
    candidates: tuple[Callable[[Distribution], Tensor | None], ...]
    candidates = (_mode_inside, _mean, _image_of_base_mode, _median, _mode_at_edge, _mean_of_points)
    for candidate in () if has_nan_parameters(distribution) else candidates:  # samples may be finite all the same
        value = candidate(distribution)
        if value is None or (action is not None and value.shape != action.shape):
            continue
        action = value if action is None else torch.where(_for_events(action.isfinite(), distribution), action, value)
        if bool(action.isfinite().all()):
            return action
    raise PolicyError(
        f"The policy returned the distribution {describe(distribution)}, which has no finite mode, mean or samples for "
        "at least one observation. Check its parameters; they are NaN or infinite if training has diverged."
    )


def _for_events(holds: Tensor, distribution: Distribution) -> Tensor:
    """Returns for each element whether something holds for all elements of its event."""
    dims = tuple(range(-len(distribution.event_shape), 0))
    return holds.all(dim=dims, keepdim=True).expand_as(holds) if dims else holds


def _mode_inside(distribution: Distribution) -> Tensor | None:
    """Returns the mode, with NaN where a class of torch finds it at the edge of a continuous support."""
    mode = _corrected_mode(distribution)
    if mode is None or not _is_of_torch(defining_class(distribution, "mode")) or is_discrete(distribution):
        return mode
    support: Any = distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    default = (0.0, 1.0) if support is constraints.simplex else (-math.inf, math.inf)
    low, high = getattr(support, "lower_bound", default[0]), getattr(support, "upper_bound", default[1])
    return torch.where(_for_events((mode > low) & (mode < high), distribution), mode, torch.nan)


def _corrected_mode(distribution: Distribution) -> Tensor | None:
    """Returns ``mode``, with the right values where torch 2.13 has none or a wrong one."""
    if type(distribution) is Kumaraswamy:  # NaN for all parameters
        a, b = distribution.concentration1, distribution.concentration0
        return torch.where((a > 1) & (b > 1), ((a - 1) / (a * b - 1)) ** a.reciprocal(), torch.nan)
    mode = property_of(distribution, "mode")
    if mode is not None and type(distribution) is Weibull:  # positive for some concentrations whose density falls
        return torch.where(distribution.concentration > 1, mode, torch.nan)
    return mode


def _mean(distribution: Distribution) -> Tensor | None:
    """Returns the mean; the most likely value of a distribution over integers, or their rounded mean."""
    if is_discrete(distribution) and (value := _most_likely(distribution)) is not None:
        return value
    mean = property_of(distribution, "mean")
    return mean.round() if mean is not None and is_discrete(distribution) else mean


def _most_likely(distribution: Distribution) -> Tensor | None:
    """Returns the most likely value, the first of several; None if the values cannot be enumerated."""
    try:
        return _densest(distribution, distribution.enumerate_support())
    except (NotImplementedError, ValueError, RuntimeError):
        return None


def _densest(distribution: Distribution, values: Tensor) -> Tensor:
    """Returns the most likely of values ``[V, …]``, the first of several, for each row of a batch."""
    best = distribution.log_prob(values).argmax(dim=0, keepdim=True)
    best = best.reshape(*best.shape, *(1 for _ in distribution.event_shape))
    return values.take_along_dim(best, dim=0).squeeze(0)


def _image_of_base_mode(distribution: Distribution) -> Tensor | None:
    image = Image.of(distribution) if is_overridden(distribution) else None
    return None if image is None else image(mode_of(image.base))


def _median(distribution: Distribution) -> Tensor | None:
    if is_overridden(distribution) or distribution.event_shape:
        return None
    try:
        half = torch.full(distribution.batch_shape, 0.5, device=device_of(distribution))
        return distribution.icdf(half)
    except (NotImplementedError, ValueError, RuntimeError):
        return None


def _mode_at_edge(distribution: Distribution) -> Tensor | None:
    return None if is_overridden(distribution) else property_of(distribution, "mode")


def _mean_of_points(distribution: Distribution) -> Tensor:
    """Returns the mean of 256 points, or the mode that a base class defines if its mean agrees with that.

    It is their median if the distribution has no finite mean, from which that of a few samples may be far away.
    """
    with forked_noise(distribution, seed=0):  # so that the action is the same whenever it is asked for
        points = points_of(distribution).float()
    mean = points.mean(dim=0) if property_of(distribution, "mean") is None else points.median(dim=0).values
    base = as_base_class(distribution) if is_overridden(distribution) else None
    expected = None if base is None else property_of(base, "mean")
    if base is None or expected is None or expected.shape != mean.shape:
        return mean.round() if is_discrete(distribution) else _in_bulk(distribution, points, mean)
    tolerance = 5 * points.std(dim=0) / len(points) ** 0.5 + 1e-6
    is_of_base = bool(((mean - expected).abs() <= tolerance).all())
    return mode_of(base) if is_of_base else _in_bulk(distribution, points, mean)


def _in_bulk(distribution: Distribution, points: Tensor, mean: Tensor) -> Tensor:
    """Returns the densest point for events whose mean is far less dense than the median point, as between peaks."""
    if not is_trusted(distribution, "log_prob"):
        return mean
    try:
        of_points, of_mean = distribution.log_prob(points), distribution.log_prob(mean)
    except Exception:  # noqa: BLE001  # what a distribution does not implement raises errors of any class
        return mean
    if of_points.shape[1:] != of_mean.shape or of_points.shape != points.shape[: of_points.ndim]:
        return mean
    is_rare = of_mean < of_points.median(dim=0).values - _RARE_NATS
    best = of_points.argmax(dim=0, keepdim=True)
    event = (1,) * (points.ndim - of_points.ndim)
    densest = points.take_along_dim(best.reshape(*best.shape, *event), dim=0).squeeze(0)
    return torch.where(is_rare.reshape(*is_rare.shape, *event), densest, mean)
