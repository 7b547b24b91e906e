"""Networks and batches as the adapters need them: device, dtype, mode, structure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from rlwandb_callbacks.policies.saved_data import OBSERVATION_MARK


def network_of(policy: Any) -> nn.Module | None:
    """Returns the network that a policy is, or is a method of."""
    owner = getattr(policy, "__self__", policy)
    return owner if isinstance(owner, nn.Module) else None


@contextlib.contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """Runs a block with a network in evaluation mode, and restores the mode of each of its modules.

    Lightning does not set the mode of networks outside the LightningModule.
    """
    modes = {part: part.training for part in network.modules()} if isinstance(network, nn.Module) else {}
    if any(modes.values()):
        network.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            if part.training != training:  # to set an attribute of a module takes longer than to read it
                part.training = training


def first_float_parameter(*networks: nn.Module | None) -> torch.Tensor:
    """Returns the first floating-point parameter of the networks; an empty float32 tensor on the CPU if none exists."""
    found = (p for network in networks if network is not None for p in network.parameters() if p.is_floating_point())
    return next(found, torch.empty(0))


def map_structure(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Applies a function to the leaves of nested mappings, tuples and lists of the same structure.

    Named tuples and TensorDicts keep their type.

    Example:
        >>> map_structure(max, {"a": (1, 5)}, {"a": (3, 2)})
        {'a': (3, 5)}
    """
    if isinstance(first, Mapping):
        keys = list(first.keys())  # iterating over a TensorDict yields its rows
        entries = {key: map_structure(function, *(each[key] for each in (first, *others))) for key in keys}
        return cast(Any, first).clone().update(entries) if hasattr(first, "batch_size") else entries
    if isinstance(first, tuple | list):
        parts = [map_structure(function, *each) for each in zip(first, *others, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return function(first, *others)


def to_tensors(observations: Any, like: torch.Tensor) -> Any:
    """Converts a batch of ``gymnasium.vector``, an array or dicts and tuples of arrays, to tensors.

    They are on the device of ``like``; floating-point numbers have its dtype, other dtypes are kept. Leaves that are
    not numeric (text) are returned unchanged.
    """

    def to_tensor(leaf: Any) -> Any:
        array = np.asarray(leaf)
        if array.dtype.kind not in "biuf":
            return leaf
        tensor = torch.as_tensor(array, device=like.device, dtype=like.dtype if array.dtype.kind == "f" else None)
        setattr(tensor, OBSERVATION_MARK, True)  # a list of observations is a log, one of outputs may be trained with
        return tensor

    return map_structure(to_tensor, observations)


def batch_size_of(observations: Any, space: Any = None) -> int:
    """Returns the number of observations in a batch as ``gymnasium.vector`` builds it.

    The space of one observation distinguishes the tuple of a ``Tuple`` space from the tuples in which texts, sequences
    and graphs are batched; without it a tuple is read as that of a ``Tuple`` space.
    """
    if isinstance(observations, dict):
        key = next(iter(observations))
        return batch_size_of(observations[key], space[key] if isinstance(space, spaces.Dict) else None)
    if isinstance(space, spaces.Tuple):
        return batch_size_of(observations[0], space[0])
    if space is None and isinstance(observations, tuple) and not isinstance(observations[0], str):
        return batch_size_of(observations[0])
    return len(observations)


def take_rows(batch: Any, rows: list[int], space: Any = None) -> Any:
    """Returns some rows of a batch as ``gymnasium.vector`` builds it, or of its tensors.

    The space of one observation is needed as in :func:`batch_size_of`.
    """
    if isinstance(batch, dict):
        parts = space.spaces if isinstance(space, spaces.Dict) else {}
        return {key: take_rows(value, rows, parts.get(key)) for key, value in batch.items()}
    if isinstance(batch, torch.Tensor | np.ndarray):
        return batch[rows]
    if isinstance(space, spaces.Tuple):
        return tuple(take_rows(part, rows, each) for part, each in zip(batch, space.spaces, strict=True))
    if space is None and isinstance(batch, tuple) and not isinstance(batch[0], str):
        return tuple(take_rows(part, rows) for part in batch)
    return tuple(batch[row] for row in rows)
