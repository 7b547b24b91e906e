"""Attributes that were set in the sub-environments of a vector after it was made, so that copies have them too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gymnasium.vector import VectorEnv

from rlwandb_callbacks.environments.changed_attributes import Changes, LayerKey, NewEnvironment, layers_of, with_changes
from rlwandb_callbacks.environments.output import WithoutOutput
from rlwandb_callbacks.environments.plain_values import are_equal, is_data, is_plain
from rlwandb_callbacks.environments.wrappers import sub_envs

IDLE = "default"  # state of an AsyncVectorEnv that waits for no answer


@dataclass(frozen=True)
class MakeChanged:
    """Function of a vector, whose environment gets attributes as soon as it is made."""

    make: Callable[[], Any]
    changes: Changes

    def __call__(self) -> Any:
        """Makes an environment."""
        return with_changes(self.make(), self.changes)


def has_sub_env_functions(base: Any) -> bool:
    """Returns whether an innermost environment is a vector that has the functions that make its sub-environments."""
    return isinstance(base, VectorEnv) and isinstance(getattr(base, "env_fns", None), list | tuple)


def observe_sub_envs(vector: Any) -> list[NewEnvironment | None]:
    """Makes sub-environments of each kind that a vector has, and returns what is known about those of each row."""
    functions, living = vector.env_fns, sub_envs(vector)
    kinds = [tuple(layers_of(env)) for env in living] or [()] * len(functions)
    known: dict[Any, NewEnvironment | None] = {}
    for kind, make in zip(kinds, functions, strict=True):
        if kind not in known:
            known[kind] = NewEnvironment.observe(WithoutOutput(make))
    return [known[kind] for kind in kinds]


def changes_in_sub_envs(vector: Any, new: Sequence[NewEnvironment | None]) -> list[Changes] | None:
    """Returns the attributes in which the sub-environments of a vector differ from new ones; None if they are unknown.

    Sub-environments in other processes are asked for the attributes that new ones have, unless they are busy.
    """
    first = vector.env_fns[0]
    others = [function is not first for function in vector.env_fns]  # may make environments with other arguments
    living = sub_envs(vector)
    if living:
        return [
            {} if known is None else known.changes_in(env, with_equal=is_other)
            for env, known, is_other in zip(living, new, others, strict=True)
        ]
    return None if new[0] is None else _changes_in_subprocesses(vector, new[0], others)


def _changes_in_subprocesses(vector: Any, new: NewEnvironment, others: Sequence[bool]) -> list[Changes] | None:
    if getattr(getattr(vector, "_state", None), "value", None) != IDLE:
        return None
    found: list[dict[LayerKey, dict[str, Any]]] = [{} for _ in others]
    for name, key in _readable(new).items():
        if not all(vector.call("has_wrapper_attr", name)):  # a subprocess ends if it is asked for what it lacks
            continue
        usual = new.layers[key].constant[name]
        for changes, value, is_other in zip(found, vector.get_attr(name), others, strict=True):
            if is_plain(value) and (is_other or not are_equal(value, usual)):
                changes.setdefault(key, {})[name] = value
    return list(found)


def _readable(new: NewEnvironment) -> dict[str, LayerKey]:
    """Returns the outermost layer that has an attribute, for each name that is constant there.

    A subprocess ends if it cannot send a value, such as the surface of pygame that takes the place of None when an
    environment is drawn for the first time. Only attributes that are data in a new environment are asked for.
    """
    keys: dict[str, LayerKey] = {}
    for key, layer in new.layers.items():
        for name in (*layer.constant, *layer.variable):
            keys.setdefault(name, key)
    return {name: key for name, key in keys.items() if is_data(new.layers[key].constant.get(name))}


def set_in_sub_envs(vector: VectorEnv[Any, Any, Any], changes: Sequence[Changes]) -> None:
    """Sets attributes in the sub-environments of a new vector, by row, and in those that its functions will make."""
    base: Any = vector.unwrapped
    if not any(changes):
        return
    for env, each in zip(sub_envs(base), changes, strict=False):
        with_changes(env, each)
    if not sub_envs(base):
        flat = [{name: value for layer in each.values() for name, value in layer.items()} for each in changes]
        for name in dict.fromkeys(name for each in flat for name in each):
            values = zip(base.get_attr(name), flat, strict=True)
            base.set_attr(name, [each.get(name, present) for present, each in values])
    base.env_fns = [MakeChanged(make, each) for make, each in zip(base.env_fns, changes, strict=True)]
