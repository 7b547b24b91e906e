"""Copies of values that can be put back in place: of objects, containers, tensors, arrays and random generators."""

from __future__ import annotations

import contextlib
import functools
import random
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from rlwandb_callbacks.policies.iterators import SETTABLE, saved_position
from rlwandb_callbacks.policies.namespaces import namespaces
from rlwandb_callbacks.policies.reachable import MAX_ENTRIES, MODULE_INTERNALS, Part, is_foreign, own_attributes
from rlwandb_callbacks.policies.saved_data import OBSERVATION_MARK, copy_data, is_data, outline, restore_data

MAX_ARRAY_BYTES = 2**20
MAX_COPIED_BYTES = 128 * 2**20
Container: TypeAlias = dict[Any, Any] | list[Any] | deque[Any] | set[Any]
Restore: TypeAlias = Callable[[], object]
_CONTAINERS = (dict, list, deque, set)
_MISSING = object()


class Snapshot:
    """State of the parts of a module or a policy at the time when this is made.

    At most ``MAX_COPIED_BYTES`` of tensors and arrays are copied, the smallest first. Larger data and long containers
    are only watched for changes.

    Args:
        parts: Parts as :func:`rlwandb_callbacks.policies.reachable.reachable` finds them.
        max_buffer_bytes: Size of the largest buffer that is copied.
        max_array_bytes: Size of the largest other tensor or array that is copied.
        attributes: Single attributes of further objects, and their values.
        variables: Whether variables of functions, attributes of classes and slots are saved too.
        watched: Further parts that are only watched for changes.

    Attributes:
        failures: Parts that could not be copied or put back, such as objects whose attributes cannot be read, and the
            errors. The other parts are not affected.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        *,
        max_buffer_bytes: int = MAX_ARRAY_BYTES,
        max_array_bytes: int = MAX_ARRAY_BYTES,
        attributes: Iterable[tuple[dict[str, Any], dict[str, Any]]] = (),
        variables: bool = False,
        watched: Iterable[Part] = (),
    ) -> None:
        found = list(parts)
        self.failures: list[tuple[Part, Exception]] = []
        copied = _small_data(found, max_buffer_bytes, max_array_bytes)
        self._restores: list[tuple[Part, Restore]] = [
            (Part(owner, ("",)), functools.partial(_put_back, owner, before)) for owner, before in attributes
        ]
        self._watched = [(part, outline(part.value)) for part in watched]
        for part in found:
            with self._noting_failures(part):
                self._save(part, copies_data=id(part.value) in copied, variables=variables)

    @contextlib.contextmanager
    def _noting_failures(self, part: Part) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # objects of users and of libraries may raise anything
            self.failures.append((part, error))

    def _save(self, part: Part, *, copies_data: bool, variables: bool) -> None:
        restore = _saved(part.value, copies_data=copies_data)
        if restore is not None:
            self._restores.append((part, restore))
        elif (seen := outline(part.value)) is not None:
            self._watched.append((part, seen))
        for owner in namespaces(part.value) if variables else ():
            self._restores.append((part, functools.partial(_restore_attributes, owner, dict(owner))))

    def restore(self, *, only_buffers: bool = False, keeps_logs: bool = False) -> None:
        """Puts all values back in place.

        Args:
            only_buffers: Put back only the buffers of networks.
            keeps_logs: Leave lists to which only records were added: observations, numbers, text and other values, but
                no tensors that a policy has computed.
        """
        for part, restore in self._restores:
            if only_buffers and not part.is_buffer:
                continue
            with self._noting_failures(part):
                if not (keeps_logs and isinstance(restore, _List) and restore.is_log()):
                    restore()

    def changed_for_good(self) -> list[Part]:
        """Returns the parts that have changed and were not copied."""
        return [part for part, before in self._watched if _has_changed(part.value, before)]


def _has_changed(value: Any, before: Any) -> bool:
    try:
        return bool(outline(value) != before)
    except Exception:  # noqa: BLE001  # another thread may change a container while its entries are read
        return False


class _List:
    """A list and its entries."""

    def __init__(self, value: list[Any]) -> None:
        self._value, self._entries = value, list(value)

    def __call__(self) -> None:
        if not _are_same(self._value, self._entries):
            self._value[:] = self._entries

    def is_log(self) -> bool:
        """Returns whether it has only grown, by entries without tensors that a policy has computed."""
        size = len(self._entries)
        return _are_same(self._value[:size], self._entries) and not any(map(_has_output, self._value[size:]))


def _has_output(entry: Any) -> bool:
    """Returns whether an entry of a list is, or contains, a tensor that a policy has computed."""
    values: Iterable[Any] = (entry,)
    if isinstance(entry, tuple | list):
        values = entry
    elif not isinstance(entry, torch.Tensor):
        values = (entry if isinstance(entry, dict) else own_attributes(entry) or {}).values()
    return any(isinstance(value, torch.Tensor) and not hasattr(value, OBSERVATION_MARK) for value in values)


def is_generator(value: Any) -> bool:
    """Returns whether a value is a random generator."""
    numpy_generators = np.random.Generator | np.random.RandomState | np.random.BitGenerator
    return isinstance(value, numpy_generators | random.Random | torch.Generator)


def fingerprint(value: Any, seen: frozenset[int] = frozenset()) -> Any:
    """Returns a description that is equal for equal values; ``seen`` has the ids of containers on the way to it."""
    try:
        return _fingerprint(value, seen)
    except Exception:  # noqa: BLE001  # objects of users and of libraries may raise anything when they are read
        return id(value)


def _fingerprint(value: Any, seen: frozenset[int]) -> Any:
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


def _small_data(parts: Sequence[Part], max_buffer_bytes: int, max_array_bytes: int) -> set[int]:
    """Returns the ids of the tensors and arrays that are copied."""
    limits = {True: max_buffer_bytes, False: max_array_bytes}
    data = [part.value for part in parts if is_data(part.value) and part.value.nbytes <= limits[part.is_buffer]]
    copied, left = set[int](), MAX_COPIED_BYTES
    for value in sorted(data, key=lambda value: value.nbytes):
        left -= value.nbytes
        if left >= 0:
            copied.add(id(value))
    return copied


def _saved(value: Any, *, copies_data: bool) -> Restore | None:
    """Returns a function that puts the present content of a value back into it; None if there is none to put back."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return functools.partial(restore_data, value, copy_data(value)) if copies_data else None
    if isinstance(value, _CONTAINERS):
        return _saved_container(value) if len(value) <= MAX_ENTRIES else None
    if isinstance(value, bytearray | array):
        return functools.partial(value.__setitem__, slice(None), value[:]) if len(value) <= MAX_ARRAY_BYTES else None
    if type(value) in SETTABLE:
        return saved_position(value)
    if is_generator(value):
        return _saved_generator(value)
    attributes = own_attributes(value)
    if attributes is None or isinstance(value, nn.modules.lazy.LazyModuleMixin):  # its class will change
        return None
    return functools.partial(_restore_object, value, attributes)


def _restore_object(owner: Any, before: dict[str, Any]) -> None:
    _restore_attributes(vars(owner), before, MODULE_INTERNALS if isinstance(owner, nn.Module) else ())


def _restore_attributes(
    attributes: MutableMapping[str, Any], before: dict[str, Any], internals: Collection[str] = ()
) -> None:
    if len(attributes) > len(before):
        added = [name for name in attributes if name not in before and name not in internals]
        for name in added:
            if not is_foreign(attributes[name]):
                del attributes[name]
    _put_back(attributes, before)


def _put_back(attributes: MutableMapping[str, Any], before: dict[str, Any]) -> None:
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
    if _are_same([*value, *value.values()], [*before, *before.values()]):
        return
    if any(map(is_foreign, value.values())):  # such as files that the policy has opened
        _restore_attributes(value, before)
    else:
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
    if isinstance(value, np.random.BitGenerator):
        return functools.partial(setattr, value, "state", value.state)
    if isinstance(value, random.SystemRandom):
        return lambda: None
    if isinstance(value, random.Random):
        return functools.partial(value.setstate, value.getstate())
    return functools.partial(value.set_state, value.get_state())
