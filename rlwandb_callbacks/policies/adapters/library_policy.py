"""What the adapters for the policy objects of other libraries have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from types import MethodType
from typing import Any, Protocol

import torch
from torch import nn
from torch.distributions import AffineTransform, Distribution, Normal, TanhTransform, TransformedDistribution


class LibraryPolicy(Protocol):
    """A policy object of another library as a function of a batch of observations.

    Attributes:
        networks: The networks that act, which are in evaluation mode while they do.
        takes_arrays: Whether it takes numpy arrays, as environments give them, instead of tensors.
    """

    networks: nn.ModuleList
    takes_arrays: bool

    def __call__(self, observations: Any, state: Any = None) -> Mapping[str, Any]:
        """Returns a mapping that :class:`rlwandb_callbacks.policies.output_reader.OutputReader` reads.

        Args:
            observations: Observations ``[B, ...]``, or dicts or tuples of them.
            state: The entry ``state`` of the previous output; None when episodes start.
        """
        ...


def owner_of(policy: Any, *method_names: str) -> Any:
    """Returns the object of a bound method that has one of the names, and any other policy unchanged."""
    is_method = isinstance(policy, MethodType) and policy.__func__.__name__ in method_names
    return policy.__self__ if is_method else policy


def has_methods(candidate: Any, *names: str) -> bool:
    """Returns whether an object, not a class, has all the methods."""
    return not isinstance(candidate, type) and all(callable(getattr(candidate, name, None)) for name in names)


def has_no_forward(candidate: Any) -> bool:
    """Returns whether an object cannot be called: a network without ``forward``, or an object without ``__call__``."""
    if isinstance(candidate, nn.Module):
        return type(candidate).forward is nn.Module.forward
    return not callable(candidate)


def networks_in(candidates: Iterable[Any]) -> nn.ModuleList:
    """Returns the networks among some objects."""
    return nn.ModuleList([each for each in candidates if isinstance(each, nn.Module)])


@contextlib.contextmanager
def replaced_attributes(owner: Any, **values: Any) -> Iterator[None]:
    """Sets attributes that an object has for the duration of a block."""
    before = {name: getattr(owner, name) for name in values if hasattr(owner, name)}
    for name in before:
        setattr(owner, name, values[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def scaled_normal(normal: Normal, low: Any, high: Any, *, squashes: bool) -> Distribution:
    """Returns the distribution of a sample that is scaled linearly from [-1, 1] to the bounds of an action space.

    Args:
        normal: A Gaussian ``[B, n]``.
        low: Lower bounds, of n numbers.
        high: Upper bounds, of n numbers.
        squashes: Whether tanh maps the sample to [-1, 1] before.
    """
    low, high = (
        torch.as_tensor(bound.reshape(1, -1), device=normal.mean.device, dtype=normal.mean.dtype)
        for bound in (low, high)
    )
    middle, half = (low + high) / 2, (high - low) / 2
    if squashes:
        return TransformedDistribution(normal, [TanhTransform(), AffineTransform(middle, half)])
    return Normal(middle + half * normal.mean, half * normal.stddev)
