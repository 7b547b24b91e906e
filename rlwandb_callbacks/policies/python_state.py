"""State that a policy keeps in Python attributes: found, copied and put back.

Examples are the action queue of a policy that predicts several actions at once, a hidden state in an attribute, and a
counter of calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeAlias

from torch import nn

from rlwandb_callbacks.policies.reachable import own_attributes, reachable
from rlwandb_callbacks.policies.saved_values import Snapshot, fingerprint

Attribute: TypeAlias = tuple[str, str]  # holder and name
Fingerprints: TypeAlias = Mapping[Attribute, Any]


class PythonState:
    """Attributes of a policy, of the networks in it and of the objects in them, besides parameters.

    Args:
        holders: The objects that have the attributes, by their paths in the policy.
    """

    def __init__(self, holders: Mapping[str, Any]) -> None:
        self._holders = holders

    @classmethod
    def of(cls, policy: Any) -> PythonState:
        """Finds the objects that a policy consists of."""
        holders: dict[str, Any] = {}
        for part in reachable(getattr(policy, "_orig_mod", policy)):
            if own_attributes(part.value) is not None:
                holders[part.name + "'" * (part.name in holders)] = part.value
        return cls(holders)

    def capture(self) -> Snapshot:
        """Copies the present state."""
        return Snapshot(reachable(*self._holders.values(), networks=False))

    def capture_attributes(self, chosen: Collection[Attribute]) -> Snapshot:
        """Copies the present state of some attributes."""
        values = [(vars(self._holders[holder]), name) for holder, name in chosen if holder in self._holders]
        attributes = [(owner, {name: owner[name]}) for owner, name in values if name in owner]
        parts = reachable(*(value for _, before in attributes for value in before.values()), networks=False)
        return Snapshot(parts, attributes=attributes)

    def fingerprints(self) -> dict[Attribute, Any]:
        """Returns a comparable description of each attribute except buffers, by its holder and name."""
        return {
            (holder, name): fingerprint(value)
            for holder, part in self._holders.items()
            for name, value in (own_attributes(part) or {}).items()
        }

    def holders_of(self, path: str) -> Iterator[Any]:
        """Yields the object at a path, then those that hold it."""
        names = path.split(".")
        for length in range(len(names), -1, -1):
            found = self._holders.get(".".join(names[:length]))
            if found is not None:
                yield found

    def limited_to(self, holders: Collection[str]) -> PythonState:
        """Returns the state of the networks that some objects are or belong to, else of what holds them."""
        around: dict[str, Any] = {}
        for holder in holders:
            owners = list(self.holders_of(holder))
            found = [owner for owner in owners if isinstance(owner, nn.Module)][:1] or owners[-1:]
            around.update((holder, owner) for owner in found)
        return PythonState(around)


def changed_attributes(before: Fingerprints, after: Fingerprints) -> set[Attribute]:
    """Returns the attributes that differ, or that only one side has."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def attribute_names(attributes: set[Attribute]) -> str:
    """Names attributes for a message, by their paths in the policy."""
    paths = {f"{holder}.{name}".lstrip(".") for holder, name in attributes}
    return ", ".join(f"`{path}`" for path in sorted(paths))


def have_same_form(before: Any, after: Any) -> bool:
    """Returns whether two fingerprints are of numbers, or of arrays of one shape."""
    if isinstance(before, int | float) and isinstance(after, int | float):
        return True
    are_tuples = isinstance(before, tuple) and isinstance(after, tuple)
    return are_tuples and isinstance(before[1], bytes) and isinstance(after[1], bytes) and before[0] == after[0]


def reset_methods(policy: Any, state: PythonState, changed: Collection[Attribute]) -> list[Callable[[], Any]]:
    """Returns the methods that reset some attributes of a policy when an episode starts; none if one has none.

    That is ``reset`` of the object that a policy is or belongs to, else of the objects that are the values of the
    attributes or hold them. Numbers beside them need no method.
    """
    of_policy = reset_method(policy)
    if of_policy is not None:
        return [of_policy]
    methods: dict[int, Callable[[], Any]] = {}
    for holder, name in changed:
        owners = list(state.holders_of(holder))
        value = vars(owners[0]).get(name) if owners else None
        candidates = [value, *owners] if own_attributes(value) is not None else owners
        found = next(((id(each), reset) for each in candidates if (reset := reset_method(each)) is not None), None)
        if found is not None:
            methods[found[0]] = found[1]
        elif not isinstance(value, int | float):
            return []
    return list(methods.values())


def reset_method(policy: Any) -> Callable[[], Any] | None:
    """Returns the method ``reset`` of the object that a policy is or belongs to, if it can be called at each episode.

    One that needs arguments, or that deals with environments, is not meant for that.
    """
    owner = getattr(policy, "__self__", policy)
    try:
        reset = getattr(owner, "reset", None)
    except Exception:  # noqa: BLE001  # a property, or __getattr__, of the user's may raise anything
        return None
    code = getattr(inspect.unwrap(reset) if callable(reset) else None, "__code__", None)
    if not callable(reset) or code is None or any("env" in name.lower() for name in code.co_names):
        return None
    required = [
        each
        for each in inspect.signature(reset).parameters.values()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    return None if required else reset
