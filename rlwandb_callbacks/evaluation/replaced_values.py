"""Replaces values inside the parts of a module or policy for the time of an evaluation."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from rlwandb_callbacks.policies.namespaces import namespaces
from rlwandb_callbacks.policies.reachable import MAX_ENTRIES, Part, own_attributes

Replace: TypeAlias = Callable[[Any], Any]
_WITHOUT_ENTRIES = (torch.Tensor, np.ndarray, tuple)


def replace_values(parts: Iterable[Part], *replace: Replace) -> None:
    """Replaces entries of containers, attributes and variables in place; a ``Snapshot`` puts them back.

    Args:
        parts: The parts that contain the values.
        replace: Functions that each return another value, or the same object to keep it.
    """
    for part in parts:
        if isinstance(part.value, _WITHOUT_ENTRIES):
            continue
        with contextlib.suppress(Exception):  # objects of users and of libraries may raise anything
            for entries in (_changeable_entries(part.value), *namespaces(part.value)):
                _replace_entries(entries, replace)


def _replace_entries(entries: Any, replace: Iterable[Replace]) -> None:
    for name, value in list(entries.items() if isinstance(entries, MutableMapping) else enumerate(entries)):
        for each in replace:
            if (new := each(value)) is not value:
                entries[name] = new
                break


def _changeable_entries(whole: Any) -> dict[Any, Any] | list[Any] | deque[Any]:
    """Returns what a ``Snapshot`` restores, to change it in place."""
    if isinstance(whole, dict | list | deque):
        return whole if len(whole) <= MAX_ENTRIES else {}
    if own_attributes(whole) is None or isinstance(whole, nn.modules.lazy.LazyModuleMixin):
        return {}
    attributes: dict[str, Any] = vars(whole)
    return attributes
