"""Names of the tasks of a vector whose environments differ."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gymnasium.vector import VectorEnv

from rlwandb_callbacks.core.key_names import valid_name
from rlwandb_callbacks.environments.closing import closing
from rlwandb_callbacks.environments.output import WithoutOutput
from rlwandb_callbacks.environments.wrappers import has_own, sub_envs, wrapper_chain

NAME_ATTRIBUTES = ("task_name", "task", "env_name", "level_name")
NAME = re.compile(r"[\w ./:+-]{1,60}")
NO_TASK = re.compile(
    r"seed|rank|index|idx|render|random_state|worker|process|path|dir$|file|folder"
    r"|(^|_)(i|id|num|n|device|gpu|host|port|address|log|verbose|debug|fps)($|_)",
    re.IGNORECASE,
)
MAX_NUMBERS = 10  # different values of an argument that tell tasks apart; more are drawn at random
DEFAULT = "default"  # of an environment without the argument in which others differ
MAX_ARGUMENT = 40  # characters of an argument that names a task


def task_names(env: Any) -> tuple[str, ...]:
    """Returns the name of the task of each environment in a vector, as a part of keys.

    A name is the id of the environment, its attribute ``task_name`` or similar, or its class: the first of these in
    which the environments differ. The arguments with which they were made are added where names are equal.

    A vector of subprocesses does not give access to its environments. If one function makes all of them, they are taken
    to be equal. Otherwise, the first two and the last one are made again in this process, and all if these differ.

    Returns:
        One name per environment; empty if they do not differ, or if ``env`` is no vector of single environments.

    Example:
        >>> import gymnasium as gym
        >>> makers = [lambda flag=flag: gym.make("CartPole-v1", sutton_barto_reward=flag) for flag in (True, False)]
        >>> task_names(gym.vector.SyncVectorEnv(makers))
        ('sutton_barto_reward_True', 'sutton_barto_reward_False')
    """
    if not isinstance(env, VectorEnv):
        return ()
    singles = sub_envs(env.unwrapped)
    if singles:
        return _names(list(map(_Description, singles)))
    functions: Sequence[Callable[[], Any]] = getattr(env.unwrapped, "env_fns", None) or ()
    if len(set(map(id, functions))) < 2:
        return ()
    count = len(functions)
    some = [_describe_new(functions[index]) for index in sorted({0, 1, count - 1})]
    if not _names(some):
        return ()
    return _names([*some[:2], *map(_describe_new, functions[2 : count - 1]), *some[2:]])


def _describe_new(make: Callable[[], Any]) -> _Description:
    with closing(WithoutOutput(make)()) as single:
        return _Description(single)


class _Description:
    """What may tell the task of an environment from others."""

    def __init__(self, env: Any) -> None:
        layers = list(wrapper_chain(env))
        base = layers[-1]
        spec = getattr(env, "spec", None) or getattr(base, "spec", None)
        self.id: str | None = getattr(spec, "id", None)
        self.name = next((name for layer in layers if (name := _own_name(layer)) is not None), None)
        self.arguments = dict(spec.kwargs) if spec is not None and spec.kwargs else _arguments(base)
        self.class_name = type(base).__name__


def _own_name(layer: Any) -> str | None:
    found = (getattr(layer, name, None) for name in NAME_ATTRIBUTES if has_own(layer, name))
    return next((name for name in found if isinstance(name, str) and NAME.fullmatch(name)), None)


def _arguments(base: Any) -> dict[str, Any]:
    """Returns the attributes of an environment that are named like arguments of its class."""
    try:
        parameters = inspect.signature(type(base)).parameters
    except (TypeError, ValueError):
        return {}
    return {name: vars(base)[name] for name in parameters if name in getattr(base, "__dict__", {})}


def _names(found: Sequence[_Description]) -> tuple[str, ...]:
    ids = [each.id for each in found]
    classes = [each.class_name for each in found]
    for known in (ids, [each.name for each in found], classes):
        if None not in known and len(set(known)) > 1:
            first = _short([str(name) for name in known])
            break
    else:
        first = [""] * len(found)
    names = ["-".join(filter(None, pair)) for pair in zip(first, _by_arguments(found, first), strict=True)]
    return tuple(valid_name(name or DEFAULT) for name in names) if len(set(names)) > 1 else ()


def _short(names: Sequence[str]) -> list[str]:
    """Removes the namespaces of ids if they do not tell them apart."""
    short = {name: name.rpartition("/")[2] for name in names}
    return [short[name] if len(set(short.values())) == len(short) else name for name in names]


def _by_arguments(found: Sequence[_Description], groups: Sequence[str]) -> list[str]:
    """Returns the arguments in which environments differ that have the same name otherwise; empty for all others."""
    repeated = {group for group, count in Counter(groups).items() if count > 1}
    texts = []
    for each, group in zip(found, groups, strict=True):
        others = [other.arguments for other, of in zip(found, groups, strict=True) if of == group]
        texts.append(_differences(each.arguments, others) if group in repeated else "")
    return texts


def _differences(arguments: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    differing = [
        name
        for name, value in arguments.items()
        if isinstance(value, str | int | float)
        and not NO_TASK.search(name)
        and any(other.get(name) != value for other in others)
        and (isinstance(value, str) or len({repr(other.get(name)) for other in others}) <= MAX_NUMBERS)
    ]
    values = [arguments[name] for name in differing]
    texts = [str(v) if isinstance(v, str) else f"{name}_{v}" for name, v in zip(differing, values, strict=True)]
    return "-".join(text[:MAX_ARGUMENT] for text in texts)
