"""Plays outside inference mode, in which ``trainer.validate`` runs and the validation of a fit does not.

Tensors that are made in inference mode can never take part in a backward pass. Outside it, in turn, they cannot be
changed in place, so those that ``validation_step`` has made are replaced by copies meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch

from rlwandb_callbacks.policies.reachable import MAX_ENTRIES


@contextlib.contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leaves inference mode and records no gradients in the block."""
    with torch.inference_mode(False), torch.no_grad():  # in this order, as the first one turns gradients on
        yield


def inference_tensor_copier() -> Callable[[Any], Any]:
    """Returns a function that copies inference tensors, and tuples that hold them; other values stay as they are."""
    return functools.partial(_copied, copies={})


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """Returns a copy of an inference tensor, or of a tuple that holds one; any other value as it is."""
    if isinstance(value, torch.Tensor) and value.is_inference() and id(value) not in copies:
        copies[id(value)] = value.detach().clone()
    elif isinstance(value, tuple) and len(value) <= MAX_ENTRIES and id(value) not in copies:
        entries = [_copied(entry, copies) for entry in value]
        if any(mine is not theirs for mine, theirs in zip(entries, value, strict=True)):
            copies[id(value)] = _tuple_like(value, entries)
    return copies.get(id(value), value)


def _tuple_like(value: tuple[Any, ...], entries: list[Any]) -> tuple[Any, ...]:
    if hasattr(value, "_make"):
        return cast("tuple[Any, ...]", value._make(entries))
    cls = type(value)
    is_plain = cls is tuple or cls.__module__ == "torch.return_types"  # constructors of other classes are not known
    return cls(entries) if is_plain else value
