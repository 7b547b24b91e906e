"""Which class of a distribution defines what, so that nothing is read that describes another distribution.

A subclass such as ``class TanhNormal(Normal)`` with its own ``rsample`` inherits ``mode``, ``mean``, ``stddev`` and
``entropy`` of the unsquashed distribution. A property is used only if the class that samples, or one derived from it,
defines it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

SAMPLERS = ("sample", "rsample")
_LIBRARIES = ("torch.", "torchrl.", "tensordict.")  # their classes define what differs from their bases


def sample_of(distribution: Distribution) -> Tensor:
    """Returns one sample, by ``rsample`` if a class overrides only that."""
    if type(distribution) is Independent:
        return sample_of(distribution.base_dist)
    return sampler_of(distribution)()


def is_overridden(distribution: Distribution) -> bool:
    """Returns whether a class outside of the known libraries defines how the distribution samples."""
    return not sampling_class_of(distribution).__module__.startswith(_LIBRARIES)


def defining_class(distribution: Distribution, name: str) -> type:
    """Returns the class that defines an attribute; ``object`` if none does."""
    return next((cls for cls in type(distribution).__mro__ if name in vars(cls)), object)


def sampling_class_of(distribution: Distribution) -> type:
    """Returns the class that defines how the distribution samples."""
    return type(distribution).__mro__[_sampling_position(distribution)]


def sampler_of(distribution: Distribution) -> Callable[..., Tensor]:
    """Returns the method that samples: ``rsample`` if a class outside of the known libraries overrides only that."""
    by_rsample = _defining_position(distribution, "rsample") < _defining_position(distribution, "sample")
    sampler: Callable[..., Tensor] = getattr(
        distribution, "rsample" if by_rsample and is_overridden(distribution) else "sample"
    )
    return sampler


def is_trusted(distribution: Distribution, name: str) -> bool:
    """Returns whether an attribute describes the distribution that is sampled, and not a base class of it."""
    if not is_overridden(distribution):
        return True
    return _defining_position(distribution, name) <= _sampling_position(distribution)


def property_of(distribution: Distribution, name: str) -> Tensor | None:
    """Reads a trusted property, or method without parameters; TorchRL's raise a RuntimeError if not implemented."""
    if not is_trusted(distribution, name):
        return None
    try:
        found: Any = getattr(distribution, name)
        found = found() if callable(found) else found
    except (NotImplementedError, AttributeError, RuntimeError, TypeError, ValueError):
        return None
    return found if isinstance(found, Tensor) else None


def as_base_class(distribution: Distribution) -> Distribution | None:
    """Returns the distribution as an instance of the class whose sampling is overridden; None if it is abstract."""
    mro = type(distribution).__mro__
    base = mro[_sampling_position(distribution) + 1]
    if not issubclass(base, Distribution) or base is Distribution:
        return None
    view = copy.copy(distribution)
    view.__class__ = base
    return view


def is_discrete(distribution: Distribution) -> bool:
    """Returns whether the values are separate; False if a distribution does not define its support."""
    try:
        support: Any = distribution.support
        return bool(support.is_discrete)
    except (NotImplementedError, AttributeError, TypeError):  # TypeError: TorchRL's TanhNormal
        return False


def bounds_of(distribution: Any) -> tuple[Tensor, Tensor] | None:
    """Returns the attributes ``low`` and ``high`` of a truncated or uniform distribution of a known library."""
    low, high = (getattr(distribution, name, None) for name in ("low", "high"))
    if is_overridden(distribution) or not isinstance(low, Tensor) or not isinstance(high, Tensor):
        return None
    return low, high


def has_nan_parameters(distribution: Distribution) -> bool:
    """Returns whether a parameter, as ``arg_constraints`` names them, is NaN."""
    try:
        names = tuple(distribution.arg_constraints)
    except (NotImplementedError, AttributeError, TypeError):  # a user's class need not define them
        names = ()
    parameters = [vars(distribution).get(name) for name in names]
    parts = [part for part in vars(distribution).values() if isinstance(part, Distribution)]
    return any(isinstance(value, Tensor) and bool(value.isnan().any()) for value in parameters) or any(
        map(has_nan_parameters, parts)
    )


def describe(distribution: Distribution) -> str:
    """Returns the representation of a distribution, or its class where it has none."""
    try:
        return repr(distribution)
    except Exception:  # noqa: BLE001  # torch's fails for classes without arg_constraints
        return f"{type(distribution).__module__}.{type(distribution).__qualname__}"


def device_of(distribution: Distribution) -> torch.device:
    """Returns the device of the first tensor in a distribution or in those that it contains."""
    for value in vars(distribution).values():
        if isinstance(value, Tensor):
            return value.device
        if isinstance(value, Distribution):
            return device_of(value)
    return torch.device("cpu")


def _sampling_position(distribution: Distribution) -> int:
    """Returns the position of the class that samples among the classes that a distribution derives from."""
    return min(_defining_position(distribution, name) for name in SAMPLERS)


def _defining_position(distribution: Distribution, name: str) -> int:
    """Returns the position in the method resolution order of the class that defines an attribute."""
    mro = type(distribution).__mro__
    return next((index for index, cls in enumerate(mro) if name in vars(cls)), len(mro))
