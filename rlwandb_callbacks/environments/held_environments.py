"""Finds the environments that a module and other objects hold."""

from __future__ import annotations

import functools
import itertools
import re
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

TRAINING_NAMES = ("envs", "env", "train_envs", "train_env", "training_envs", "training_env")
INNER_NAMES = ("env", "venv", "base_env")  # attributes in which layers of environments hold the next one
MAX_DEPTH = 6  # objects and containers between a root and an environment
MAX_ENTRIES = 64  # of a container that are searched, as longer ones are data
MAX_ATTRIBUTES = 500  # of an object
MAX_OBJECTS = 5_000
_EVALUATION = re.compile(r"(^|_)(eval|evaluat|test|val($|_|\d|env|id))")
_TRAINER_NAMES = frozenset({"_trainer", "trainer", "_fabric", "_parameters", "_buffers", "_modules"})
_LEAVES = (str, bytes, bool, int, float, complex, type, ModuleType, type(None), np.ndarray, np.generic, gym.Space)
_FOREIGN_PACKAGES = frozenset({"lightning", "lightning_fabric", "omegaconf", "pytorch_lightning", "torch", "wandb"})
_DATA = "torch.utils.data"  # data loaders, whose data sets may play
_CONTAINERS = (list, tuple, set, frozenset, deque)


def is_environment(value: Any) -> bool:
    """Returns whether a value is an environment or a vector of any library."""
    methods = (getattr(type(value), name, None) for name in ("reset", "step"))
    return isinstance(value, gym.Env | VectorEnv) or all(map(callable, methods))


def attributes_of(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object, and the submodules of one of torch; none for objects without a dict."""
    attributes = dict(getattr(value, "__dict__", {})) if not isinstance(value, type) else {}
    submodules = attributes.get("_modules")
    return {**attributes, **submodules} if isinstance(submodules, Mapping) else attributes


def layers(env: Any) -> Iterator[Any]:
    """Yields an environment of any library and all environments inside it, from the outermost inwards."""
    waiting, seen = [env], set()
    while waiting:
        layer = waiting.pop(0)
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        attributes = attributes_of(layer)
        inside = attributes.get("envs")
        waiting += [attributes[name] for name in INNER_NAMES if name in attributes]
        waiting += inside if isinstance(inside, list | tuple) else []


def is_for_evaluation(name: str) -> bool:
    """Returns whether a name says that what it names is not for training.

    Example:
        >>> [is_for_evaluation(name) for name in ("eval_env", "envs_test", "val_env", "value_net", "latest_env")]
        [True, True, True, False, False]
    """
    return _EVALUATION.search(name.lower()) is not None


def held_environments(root: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yields the environments that an object holds, with their paths from it.

    They are searched in attributes, submodules, Python's own containers, the objects of bound methods, the arguments of
    ``functools.partial``, and the closures of functions. The nearest ones come first, and among these those with
    ``TRAINING_NAMES``. Names for which :func:`is_for_evaluation` holds are left out, with all that they hold.
    """
    waiting, seen = deque([(name, root, 0)]), {id(root): root}  # the values stay alive, as ids are used again
    while waiting and len(seen) < MAX_OBJECTS:
        path, value, depth = waiting.popleft()
        if depth and is_environment(value):
            yield path, value
            continue
        if depth > MAX_DEPTH:
            continue
        for step, part in _readable_parts(value):
            cls = type(part)  # as __class__ of a proxy without an object raises
            if id(part) not in seen and not issubclass(cls, _LEAVES) and not _is_foreign(cls):
                seen[id(part)] = part
                waiting.append((path + step, part, depth + 1))


def _is_foreign(cls: Any) -> bool:
    """Returns whether a class is of a package whose objects hold no environment, or lead to all that a Trainer has."""
    if issubclass(cls, weakref.ProxyTypes):
        return True
    module = str(cls.__module__)
    is_container = module.startswith((_DATA, "torch.nn.modules.container"))
    return module.partition(".")[0] in _FOREIGN_PACKAGES and not is_container


def _readable_parts(value: Any) -> Iterable[tuple[str, Any]]:
    """Returns the values that a value consists of; none for one that cannot be read, such as a closed database."""
    try:
        return list(_parts(value))
    except Exception:  # noqa: BLE001  # collections and proxies of users may raise anything
        return ()


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """Returns the values that a value consists of, with their part of the path."""
    if isinstance(value, MethodType):
        return [(".__self__", value.__self__)]
    if isinstance(value, functools.partial):
        arguments = [*enumerate(value.args), *value.keywords.items()]
        return [("", value.func), *((f"[{key!r}]", part) for key, part in arguments)]
    if isinstance(value, FunctionType):
        return _closure(value)
    found = attributes_of(value)
    others = (name for name in found if name not in TRAINING_NAMES)
    names = [*filter(found.__contains__, TRAINING_NAMES), *itertools.islice(others, MAX_ATTRIBUTES)]
    return [*_entries(value), *((f".{name}", found[name]) for name in names if not _is_left_out(name))]


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the first entries of Python's own containers, as these hold them.

    Methods of subclasses are not called, nor other collections read: they may load a file for each entry. What they
    consist of is found in their attributes.
    """
    if isinstance(value, dict | MappingProxyType):
        items = value.items() if isinstance(value, MappingProxyType) else dict.items(value)
        for key, part in list(itertools.islice(items, MAX_ENTRIES)):
            if not is_for_evaluation(str(key)):
                yield f"[{key!r}]", part
        return
    container = next((each for each in _CONTAINERS if isinstance(value, each)), None)
    if container is not None:  # a list, as other threads change containers
        for index, part in enumerate(list(itertools.islice(container.__iter__(value), MAX_ENTRIES))):
            yield f"[{index}]", part


def _is_left_out(name: str) -> bool:
    return name in _TRAINER_NAMES or name.endswith("_hooks") or is_for_evaluation(name)


def _closure(function: FunctionType) -> list[tuple[str, Any]]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [(f".{name}", cell.cell_contents) for name, cell in cells if cell != type(cell)()]  # not an empty one
