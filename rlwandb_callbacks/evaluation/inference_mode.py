"""Plays outside inference mode, in which ``trainer.validate`` runs and the validation of a fit does not.

Tensors that are made in inference mode can never take part in a backward pass. Outside it, in turn, they cannot be
changed in place, so those that ``validation_step`` has made are replaced by copies meanwhile.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn

from rlwandb_callbacks.policies.reachable import MAX_ENTRIES, Part, own_attributes


@contextlib.contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leaves inference mode and records no gradients in the block."""
    with torch.inference_mode(False), torch.no_grad():  # in this order, as the first one turns gradients on
        yield


def replace_inference_tensors(parts: Sequence[Part]) -> None:
    """Replaces the inference tensors in containers, tuples and attributes by copies; a ``Snapshot`` puts them back."""
    copies: dict[int, Any] = {}
    for part in parts:
        entries = _entries(part.value)
        for name, value in list(entries.items() if isinstance(entries, dict) else enumerate(entries)):
            if (copy := _copied(value, copies)) is not value:
                entries[name] = copy


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


def _entries(whole: Any) -> dict[Any, Any] | list[Any] | deque[Any]:
    """Returns what a ``Snapshot`` restores, to change it in place."""
    if isinstance(whole, dict | list | deque):
        return whole if len(whole) <= MAX_ENTRIES else {}
    if own_attributes(whole) is None or isinstance(whole, nn.modules.lazy.LazyModuleMixin):
        return {}
    attributes: dict[str, Any] = vars(whole)
    return attributes
