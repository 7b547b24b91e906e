"""Finds the values that a module and a policy consist of."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from torch import nn

from rlwandb_callbacks.core.class_names import has_base_named

MAX_DEPTH = 6  # objects and containers between a root and a value; networks are not counted
MAX_ENTRIES = 1024  # longer containers are data, such as a replay memory
MAX_ENTERED = 64  # entries of a container in which parts are searched
MAX_PARTS = 20_000
MODULE_INTERNALS = frozenset(vars(nn.Module()))
_LEAVES = (str, bytes, bool, int, float, complex, type, ModuleType, type(None))
_FOREIGN = (gym.Env, gym.vector.VectorEnv, torch.utils.data.DataLoader, torch.optim.Optimizer, *weakref.ProxyTypes)
_FOREIGN_PACKAGES = frozenset(
    {"asyncio", "concurrent", "logging", "multiprocessing", "subprocess", "threading", "wandb"}
)
_FOREIGN_PACKAGES |= {"lightning", "lightning_fabric", "pytorch_lightning", "torch"}
_FOREIGN_CLASSES = frozenset({"AECEnv", "Callback", "Logger", "ParallelEnv", "Trainer", "VecEnv"})
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_KNOWN = (nn.Module, torch.Tensor, torch.Generator, *_CONTAINERS)


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


def reachable(*roots: Any, networks: bool = True) -> Iterator[Part]:
    """Yields the parts of the roots, each once.

    These are submodules, buffers, attributes, entries of small containers, the object of a bound method, the arguments
    of a ``functools.partial``, and the variables of a function. Parameters are left out, and so are environments, data
    loaders, optimizers, Trainers and loggers.

    Args:
        roots: Modules, policies and other objects.
        networks: Whether networks inside the roots are parts.
    """
    waiting = deque((Part(root, (_name_of(root),)), 0) for root in roots if not _is_left_out(root))
    seen: dict[int, Any] = {}  # keeps the values alive, as ids are used again
    while waiting and len(seen) < MAX_PARTS:
        part, depth = waiting.popleft()
        if id(part.value) in seen:
            continue
        seen[id(part.value)] = part.value
        yield part
        is_network = isinstance(part.value, nn.Module)  # networks may be nested deeply
        if not is_network and not part.is_buffer and depth >= MAX_DEPTH:
            continue
        for name, value in _contents(part.value):
            if _is_left_out(value) or (not networks and isinstance(value, nn.Module)):
                continue
            is_buffer = part.is_buffer or (is_network and name == "_buffers")
            path = part.path if name == "_buffers" else (*part.path, name)
            waiting.append((Part(value, path, is_buffer), depth + (not is_buffer and not isinstance(value, nn.Module))))


def own_attributes(owner: Any) -> dict[str, Any] | None:
    """Returns a copy of the attributes that users gave an object; None for a value without attributes."""
    attributes = getattr(owner, "__dict__", None)
    if not isinstance(attributes, dict) or isinstance(owner, FunctionType | MethodType | functools.partial | dict):
        return None
    if isinstance(owner, nn.Module):
        return {name: value for name, value in attributes.items() if name not in MODULE_INTERNALS}
    return dict(attributes)


def is_foreign(value: Any) -> bool:
    """Returns whether a value, such as an environment, is not part of a policy that holds it."""
    cls: Any = type(value)
    return _is_foreign_class(cls)


def _is_left_out(value: Any) -> bool:
    return isinstance(value, (*_LEAVES, nn.Parameter)) or is_foreign(value)


@functools.lru_cache(maxsize=1024)
def _is_foreign_class(cls: type) -> bool:
    if issubclass(cls, _FOREIGN) or has_base_named(cls, *_FOREIGN_CLASSES):
        return True
    return not issubclass(cls, _KNOWN) and cls.__module__.partition(".")[0] in _FOREIGN_PACKAGES


def _name_of(root: Any) -> str:
    return str(getattr(root, "__qualname__", type(root).__name__))


def _contents(whole: Any) -> Iterable[tuple[Any, Any]]:
    """Returns the names and values of the parts that a value directly contains."""
    if isinstance(whole, _CONTAINERS) and len(whole) > MAX_ENTRIES:
        return ()
    if isinstance(whole, dict):
        return tuple(itertools.islice(whole.items(), MAX_ENTERED))
    if isinstance(whole, _CONTAINERS):
        return enumerate(tuple(itertools.islice(whole, MAX_ENTERED)))
    if isinstance(whole, MethodType):
        return (("", whole.__self__), ("", whole.__func__))
    if isinstance(whole, functools.partial):
        return (("", whole.func), *enumerate(whole.args), *whole.keywords.items())
    if isinstance(whole, FunctionType):
        return _variables(whole)
    own = (own_attributes(whole) or {}).items()
    if isinstance(whole, nn.Module):
        return (("_buffers", vars(whole).get("_buffers")), *whole.named_children(), *own)
    return own


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yields the default arguments and the closure of a function, and the global names that it uses."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    yield from zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if cell != type(cell)():  # an empty cell raises when it is read
            yield name, cell.cell_contents
    yield from ((name, function.__globals__[name]) for name in code.co_names if name in function.__globals__)
    if hasattr(function, "__wrapped__"):
        yield "", function.__wrapped__
