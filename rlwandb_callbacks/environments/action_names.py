"""Names that environments give to their actions."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorActionWrapper, VectorEnv, VectorWrapper

from rlwandb_callbacks.core.class_names import has_base_named
from rlwandb_callbacks.environments.closing import close
from rlwandb_callbacks.environments.output import discarded_output
from rlwandb_callbacks.environments.wrappers import has_own, sub_envs, wrapper_chain

MEANINGS = ("get_action_meanings", "get_action_meaning", "get_action_names")
"""Methods without arguments that return names."""

NAMES = ("action_names", "action_meanings", "action_labels", "actions", "ACTIONS", "Actions")
"""Attributes that hold names: texts, an enum or its members, or a dict from integers to names."""

DIMENSION_NAMES = ("action_names", "action_labels")
"""Attributes that hold names of the dimensions of an action."""

HOLDERS = ("action_type",)
"""Attributes whose object holds names, as in highway-env."""

SAME_ACTIONS = ("StickyAction", "RescaleAction", "ClipAction")
"""Wrappers that pass on actions of the same meaning; others of ``ActionWrapper`` may renumber them."""


def action_names(env: Any, count: int, first: int = 0) -> tuple[str, ...]:
    """Returns the names of ``count`` discrete actions of an environment or vector; none if no layer names all of them.

    Wrappers are asked from the outermost inwards, up to one that translates actions: the names of the layers inside it
    are those of other actions.

    Args:
        env: The environment, or a vector.
        count: Number of actions.
        first: Integer of the first action.

    Example:
        >>> import gymnasium as gym
        >>> env = gym.make("CartPole-v1")
        >>> env.unwrapped.actions = enum.IntEnum("Actions", {"left": 0, "right": 1, "jump": 2})
        >>> action_names(env, 2)
        ('left', 'right')
    """
    values = (value for layer in _layers_with_these_actions(env) for value in _values_of(layer))
    return _first_of_length(count, (_names_in(value, count, first) for value in values))


def dimension_names(env: Any, count: int) -> tuple[str, ...]:
    """Returns the names of the ``count`` dimensions of an action; none if no layer names all of them."""
    layers = _layers_with_these_actions(env)
    values = (value for layer in layers for value in _attributes(layer, DIMENSION_NAMES))
    return _first_of_length(count, (_names_in(value, count, 0) for value in values))


def _first_of_length(count: int, candidates: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return next((names for names in candidates if len(names) == count), ())


def option_names(env: Any) -> list[list[str]]:
    """Returns the names of the options of each dimension of an action; none if the environment has no such lists."""
    value = next(_called(env.unwrapped, MEANINGS), None)
    return value if isinstance(value, list) and all(isinstance(part, list | tuple) for part in value) else []


def _layers_with_these_actions(env: Any) -> Iterator[Any]:
    for layer in wrapper_chain(env):
        yield layer
        translates = isinstance(layer, gym.ActionWrapper | VectorActionWrapper)
        if translates and not has_base_named(type(layer), *SAME_ACTIONS):
            return
        if isinstance(layer, VectorEnv) and not isinstance(layer, VectorWrapper):
            with _one_of(layer) as single:
                yield from () if single is None else _layers_with_these_actions(single)


@contextlib.contextmanager
def _one_of(vector: VectorEnv[Any, Any, Any]) -> Iterator[Any]:
    """Gives an environment of a vector, or one like it if they are out of reach; None if it cannot be made."""
    for single in sub_envs(vector)[:1]:
        yield single
        return
    single = None
    with contextlib.suppress(Exception), discarded_output():  # names are not worth an error
        functions = getattr(vector, "env_fns", None)
        single = functions[0]() if functions else gym.make(vector.spec.id)  # type: ignore[union-attr]  # suppressed
    try:
        yield single
    finally:
        if single is not None:
            close(single)


def _values_of(layer: Any) -> Iterator[Any]:
    yield from _called(layer, MEANINGS)
    for holder in (layer, *_attributes(layer, HOLDERS)):
        yield from _attributes(holder, NAMES)


def _attributes(owner: Any, names: Sequence[str]) -> Iterator[Any]:
    for name in names:
        if has_own(owner, name):
            with contextlib.suppress(Exception):  # a property that needs a reset, say
                yield getattr(owner, name)


def _called(layer: Any, methods: Sequence[str]) -> Iterator[Any]:
    for method in _attributes(layer, methods):
        with contextlib.suppress(Exception):  # names are not worth an error
            yield method()


def _names_in(value: Any, count: int, first: int) -> tuple[str, ...]:
    """Reads names by their integers where there are any, else by position."""
    numbers = range(first, first + count)
    if isinstance(value, enum.EnumMeta):
        members: Iterable[enum.Enum] = value
        by_number = {member.value: member.name for member in members}
    elif isinstance(value, Mapping):
        pairs = value.items()
        by_number = {key: name for key, name in pairs if isinstance(key, int)} or {
            number: name for name, number in pairs if isinstance(number, int)
        }
    elif isinstance(value, Sequence) and not isinstance(value, str):
        names = [entry.name if isinstance(entry, enum.Enum) else entry for entry in value]
        return tuple(map(str, names)) if names and all(isinstance(name, str) for name in names) else ()
    else:
        return ()
    found = [by_number.get(number) for number in numbers]
    return tuple(map(str, found)) if all(isinstance(name, str | enum.Enum) for name in found) else ()
