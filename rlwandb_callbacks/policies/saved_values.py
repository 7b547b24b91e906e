"""Copies of values that can be put back in place: of objects, containers, tensors, arrays and random generators."""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlwandb_callbacks.policies.reachable import MAX_ENTRIES, MODULE_INTERNALS, Part, is_foreign, own_attributes

MAX_ARRAY_BYTES = 2**20
MAX_COPIED_BYTES = 128 * 2**20
Data: TypeAlias = torch.Tensor | NDArray[Any]
Container: TypeAlias = dict[Any, Any] | list[Any] | deque[Any] | set[Any]
Restore: TypeAlias = Callable[[], object]
_CONTAINERS = (dict, list, deque, set)
_MISSING = object()


class Snapshot:
    """State of the parts of a module or a policy at the time when this is made.

    At most ``MAX_COPIED_BYTES`` of tensors and arrays are copied, the smallest first, and of those that are not buffers
    only those of up to ``MAX_ARRAY_BYTES``. Larger tensors and long containers are only watched for changes.

    Args:
        parts: Parts as :func:`rlwandb_callbacks.policies.reachable.reachable` finds them.
        max_buffer_bytes: Size of the largest buffer that is copied.
        attributes: Single attributes of further objects, and their values.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        *,
        max_buffer_bytes: int = MAX_ARRAY_BYTES,
        attributes: Iterable[tuple[dict[str, Any], dict[str, Any]]] = (),
    ) -> None:
        found = list(parts)
        copied = _small_data(found, max_buffer_bytes)
        self._restores: list[tuple[bool, Restore]] = [  # whether it is of a buffer, and how it is put back
            (False, functools.partial(_put_back, owner, before)) for owner, before in attributes
        ]
        self._watched: list[tuple[Part, Any]] = []
        for part in found:
            restore = _saved(part.value, copies_data=id(part.value) in copied)
            if restore is not None:
                self._restores.append((part.is_buffer, restore))
            elif (outline := _outline(part.value)) is not None:
                self._watched.append((part, outline))

    def restore(self, *, only_buffers: bool = False, keeps_logs: bool = False) -> None:
        """Puts all values back in place.

        Args:
            only_buffers: Put back only the buffers of networks.
            keeps_logs: Leave lists that have only grown.
        """
        for is_buffer, restore in self._restores:
            is_log = keeps_logs and isinstance(restore, _List) and restore.has_grown()
            if not is_log and (is_buffer or not only_buffers):
                restore()

    def changed_for_good(self) -> list[Part]:
        """Returns the parts that have changed and were too large to be copied."""
        return [part for part, outline in self._watched if _outline(part.value) != outline]


class _List:
    """A list and its entries."""

    def __init__(self, value: list[Any]) -> None:
        self._value, self._entries = value, list(value)

    def __call__(self) -> None:
        if not _are_same(self._value, self._entries):
            self._value[:] = self._entries

    def has_grown(self) -> bool:
        return _are_same(self._value[: len(self._entries)], self._entries)


def is_generator(value: Any) -> bool:
    """Returns whether a value is a random generator."""
    return isinstance(value, np.random.Generator | np.random.RandomState | random.Random | torch.Generator)


def fingerprint(value: Any, seen: frozenset[int] = frozenset()) -> Any:
    """Returns a description that is equal for equal values; ``seen`` has the ids of containers on the way to it."""
    if isinstance(value, torch.Tensor | np.ndarray):
        if value.nbytes > MAX_ARRAY_BYTES:
            return id(value)
        array = value.detach().float().cpu().numpy() if isinstance(value, torch.Tensor) else value
        return tuple(value.shape), array.tobytes()
    if isinstance(value, bool | int | float | str | bytes | None):
        return value
    if is_generator(value):
        return "generator"
    if not isinstance(value, (*_CONTAINERS, tuple)) or len(value) > MAX_ENTRIES or id(value) in seen:
        return id(value)
    entries = value.values() if isinstance(value, dict) else value
    return type(value).__name__, [fingerprint(entry, seen | {id(value)}) for entry in entries]


def _small_data(parts: Sequence[Part], max_buffer_bytes: int) -> set[int]:
    """Returns the ids of the tensors and arrays that are copied."""
    limits = {True: max_buffer_bytes, False: MAX_ARRAY_BYTES}
    data = [part.value for part in parts if _is_data(part.value) and part.value.nbytes <= limits[part.is_buffer]]
    copied, left = set[int](), MAX_COPIED_BYTES
    for value in sorted(data, key=lambda value: value.nbytes):
        left -= value.nbytes
        if left >= 0:
            copied.add(id(value))
    return copied


def _saved(value: Any, *, copies_data: bool) -> Restore | None:
    """Returns a function that puts the present content of a value back into it; None if there is none to put back."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return functools.partial(_restore_data, value, _copy(value)) if copies_data else None
    if isinstance(value, _CONTAINERS):
        return _saved_container(value) if len(value) <= MAX_ENTRIES else None
    if is_generator(value):
        return _saved_generator(value)
    attributes = own_attributes(value)
    if attributes is None or isinstance(value, nn.modules.lazy.LazyModuleMixin):  # its class will change
        return None
    return functools.partial(_restore_object, value, attributes)


def _restore_object(owner: Any, before: dict[str, Any]) -> None:
    attributes = vars(owner)
    if len(attributes) > len(before):
        internals = MODULE_INTERNALS if isinstance(owner, nn.Module) else ()
        added = [name for name in attributes if name not in before and name not in internals]
        for name in added:
            if not is_foreign(attributes[name]):
                del attributes[name]
    _put_back(attributes, before)


def _put_back(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    for name, value in before.items():
        present = attributes.get(name, _MISSING)
        if present is not value and not is_foreign(present):
            attributes[name] = value


def _saved_container(value: Container) -> Restore:
    if isinstance(value, list):
        return _List(value)
    if isinstance(value, dict):
        return functools.partial(_restore_dict, value, dict(value))
    return functools.partial(_refill, value, list(value))


def _restore_dict(value: dict[Any, Any], before: dict[Any, Any]) -> None:
    if not _are_same([*value, *value.values()], [*before, *before.values()]):
        value.clear()
        value.update(before)


def _refill(value: deque[Any] | set[Any], entries: list[Any]) -> None:
    if not _are_same(value, entries):
        value.clear()
        value.update(entries) if isinstance(value, set) else value.extend(entries)


def _are_same(present: Iterable[Any], before: Iterable[Any]) -> bool:
    return [id(entry) for entry in present] == [id(entry) for entry in before]


def _saved_generator(value: Any) -> Restore:
    if isinstance(value, np.random.Generator):
        return functools.partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if isinstance(value, random.SystemRandom):
        return lambda: None
    if isinstance(value, random.Random):
        return functools.partial(value.setstate, value.getstate())
    return functools.partial(value.set_state, value.get_state())


def _outline(value: Any) -> Any:
    """Returns what shows most changes of a large tensor or container; None for other values."""
    if isinstance(value, torch.Tensor):
        return None if value.is_inference() else value._version  # noqa: SLF001  # public in PyTorch's documentation of autograd
    if isinstance(value, list | deque) and value:
        return len(value), id(value[0]), id(value[-1])
    return len(value) if isinstance(value, dict | set) else None


def _is_data(value: Any) -> TypeGuard[Data]:
    """Returns whether a value is an array of numbers, or a tensor that has a memory of its own."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufc" and value.flags.writeable
    if not isinstance(value, torch.Tensor) or nn.parameter.is_lazy(value):
        return False
    return value.layout is torch.strided and value.device.type != "meta"


def _copy(data: Data) -> Data:
    return data.detach().clone() if isinstance(data, torch.Tensor) else data.copy()


def _restore_data(data: Data, copied: Data) -> None:
    if isinstance(data, torch.Tensor) and isinstance(copied, torch.Tensor):
        if not _are_equal_tensors(data, copied):
            with torch.inference_mode(data.is_inference()), torch.no_grad():
                if data.shape == copied.shape:
                    data.copy_(copied)
                else:
                    data.data = copied
    elif isinstance(data, np.ndarray) and not np.array_equal(data, copied, equal_nan=data.dtype.kind in "fc"):
        data[...] = np.asarray(copied)


def _are_equal_tensors(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Returns whether two tensors have the same values, NaN being equal to NaN."""
    if first.shape != second.shape:
        return False
    return torch.equal(first, second) or bool(((first == second) | (first.isnan() & second.isnan())).all())
