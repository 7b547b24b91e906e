"""Finds the values that a module and a policy consist of."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from torch import nn

from rlwandb_callbacks.core.class_names import has_base_named
from rlwandb_callbacks.policies.iterators import COPYABLE, iterators_inside
from rlwandb_callbacks.policies.user_code import (
    FOREIGN_PACKAGES,
    LIVE_PACKAGES,
    is_user_code,
    top_package,
    used_by_code,
)

MAX_DEPTH = 6  # objects and containers between a root and a value; networks are not counted
MAX_ENTRIES = 1024  # longer containers are data, such as a replay memory
MAX_ENTERED = 64  # entries of a container in which parts are searched
MAX_ENTERED_WITH_CODE = 256
MAX_PARTS = 20_000
MODULE_INTERNALS = frozenset(vars(nn.Module()))
_LEAVES = (str, bytes, bool, int, float, complex, type, ModuleType, type(None))
_ENVS = (gym.Env, gym.vector.VectorEnv)
_FOREIGN = (*_ENVS, torch.utils.data.DataLoader, torch.optim.Optimizer, *weakref.ProxyTypes)
_FOREIGN_CLASSES = frozenset({"AECEnv", "Callback", "Logger", "ParallelEnv", "Trainer", "VecEnv"})
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_KNOWN = (nn.Module, torch.Tensor, torch.Generator, threading.local, *_CONTAINERS)


class Part(NamedTuple):
    """A value that a root consists of.

    Args:
        value: An object with attributes, a container, a tensor, an array or a random generator.
        path: The name of the root, and the names of the attributes and entries that lead to the value.
        is_buffer: Whether it is a buffer of a network, or the dict of these.
    """

    value: Any
    path: tuple[Any, ...]
    is_buffer: bool = False

    @property
    def name(self) -> str:
        """The path from the root."""
        return ".".join(str(each) for each in self.path[1:] if each != "")


def reachable(*roots: Any, networks: bool = True, code: bool = False) -> Iterator[Part]:
    """Yields the parts of the roots, each once.

    These are submodules, buffers, attributes, entries of small containers, the object of a bound method, the arguments
    of a ``functools.partial``, and the variables of a function. Parameters are left out, and so are environments, data
    loaders, optimizers, Trainers and loggers.

    Args:
        roots: Modules, policies and other objects.
        networks: Whether networks inside the roots are parts.
        code: Whether what users' code uses is part of it too, as
            :func:`rlwandb_callbacks.policies.user_code.used_by_code` finds it; more entries of containers are then.
    """
    max_entered = MAX_ENTERED_WITH_CODE if code else MAX_ENTERED
    package = top_package(type(roots[0]).__module__) if roots else ""
    waiting = deque((Part(root, (_name_of(root),)), 0) for root in roots if _is_entered(root, None))
    seen: dict[int, Any] = {}  # keeps the values alive, as ids are used again
    while waiting and len(seen) < MAX_PARTS:
        part, depth = waiting.popleft()
        if id(part.value) in seen:
            continue
        seen[id(part.value)] = part.value
        if not is_foreign(part.value):
            yield part
        is_network = isinstance(part.value, nn.Module)  # networks may be nested deeply
        if not is_network and not part.is_buffer and depth >= MAX_DEPTH:
            continue
        for name, value in _inside(part.value, package if code else None, max_entered):
            if not networks and isinstance(value, nn.Module):
                continue
            is_buffer = part.is_buffer or (is_network and name == "_buffers")
            path = part.path if name == "_buffers" else (*part.path, name)
            waiting.append((Part(value, path, is_buffer), depth + (not is_buffer and not isinstance(value, nn.Module))))


def _inside(whole: Any, package: str | None, max_entered: int) -> list[tuple[Any, Any]]:
    """Returns the names and values of the parts inside a value; ``package`` is None without what code uses."""
    found: list[tuple[Any, Any]] = []
    with contextlib.suppress(Exception):  # objects of users and of libraries may raise anything when they are read
        contents = () if is_foreign(whole) else _contents(whole, max_entered)
        used = _globals_of(whole) if package is None else used_by_code(whole, package)
        found.extend(itertools.chain(contents, used))
    return [(name, value) for name, value in found if _is_entered(value, package)]


def _is_entered(value: Any, package: str | None) -> bool:
    try:
        if package is not None and isinstance(value, (*_ENVS, type, FunctionType)):
            return not _is_of_library(value, package)
        return not _is_left_out(value)
    except Exception:  # noqa: BLE001  # of a proxy without an object, whose __class__ is a property
        return False


def own_attributes(owner: Any) -> dict[str, Any] | None:
    """Returns a copy of the attributes that users gave an object; None for a value without attributes."""
    try:
        attributes = getattr(owner, "__dict__", None)
    except Exception:  # noqa: BLE001  # of a proxy without an object
        return None
    if not isinstance(attributes, dict) or isinstance(owner, FunctionType | MethodType | functools.partial | dict):
        return None
    if isinstance(owner, nn.Module):
        return {name: value for name, value in attributes.items() if name not in MODULE_INTERNALS}
    return dict(attributes)


def is_foreign(value: Any) -> bool:
    """Returns whether a value, such as an environment, is not part of a policy that holds it."""
    cls: Any = type(value)
    return _is_foreign_class(cls)


def _is_of_library(value: Any, package: str) -> bool:
    """Returns whether nothing in a function, a class or an environment is the user's."""
    if isinstance(value, type):
        return not is_user_code(value, package) or _is_foreign_class(value)
    return isinstance(value, FunctionType) and value.__closure__ is None and not is_user_code(value, package)


def _is_left_out(value: Any) -> bool:
    return isinstance(value, (*_LEAVES, nn.Parameter)) or is_foreign(value)


@functools.lru_cache(maxsize=1024)
def _is_foreign_class(cls: type) -> bool:
    if issubclass(cls, _FOREIGN) or has_base_named(cls, *_FOREIGN_CLASSES):
        return True
    if issubclass(cls, _KNOWN):
        return False
    packages = [base.__module__.partition(".")[0] for base in cls.__mro__]
    return packages[0] in FOREIGN_PACKAGES or not LIVE_PACKAGES.isdisjoint(packages)


def _name_of(root: Any) -> str:
    try:
        return str(getattr(root, "__qualname__", type(root).__name__))
    except Exception:  # noqa: BLE001  # see _inside
        return type(root).__name__


def _contents(whole: Any, max_entered: int) -> Iterable[tuple[Any, Any]]:
    """Returns the names and values of the parts that a value directly contains."""
    if isinstance(whole, _CONTAINERS) and len(whole) > MAX_ENTRIES:
        return ()
    if isinstance(whole, deque):  # of observations, or a replay memory, whose entries do not change
        max_entered = MAX_ENTERED
    if isinstance(whole, dict):
        return tuple(itertools.islice(whole.items(), max_entered))
    if isinstance(whole, _CONTAINERS):
        return enumerate(tuple(itertools.islice(whole, max_entered)))
    if isinstance(whole, MethodType):
        return (("", whole.__self__), ("", whole.__func__))
    if isinstance(whole, functools.partial):
        return (("", whole.func), *enumerate(whole.args), *whole.keywords.items())
    if isinstance(whole, FunctionType):
        return _variables(whole)
    if type(whole) in COPYABLE:
        return enumerate(iterators_inside(whole))
    own = (own_attributes(whole) or {}).items()
    if isinstance(whole, nn.Module):
        return (("_buffers", vars(whole).get("_buffers")), *whole.named_children(), *own)
    return own


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yields the default arguments and the closure of a function."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    yield from zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if cell != type(cell)():  # an empty cell raises when it is read
            yield name, cell.cell_contents
    if hasattr(function, "__wrapped__"):
        yield "", function.__wrapped__


def _globals_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the global variables that a function uses."""
    if isinstance(value, FunctionType):
        variables = value.__globals__
        yield from ((name, variables[name]) for name in value.__code__.co_names if name in variables)
