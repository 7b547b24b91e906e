"""What users' code uses besides attributes of objects: classes, methods, global variables, spaces of environments."""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Iterator
from pathlib import PurePath
from types import FunctionType
from typing import Any

import gymnasium as gym

from rlwandb_callbacks.policies.namespaces import PLAIN_TYPES, global_names, namespaces

LIVE_PACKAGES = frozenset(  # threads, processes, locks, queues, files, sockets and loggers
    {"_io", "_queue", "_thread", "asyncio", "concurrent", "io", "logging", "mmap", "multiprocessing", "queue"}
    | {"selectors", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "wandb"}
)
FOREIGN_PACKAGES = LIVE_PACKAGES | {"lightning", "lightning_fabric", "pytorch_lightning", "torch"}
_LIBRARIES = FOREIGN_PACKAGES | sys.stdlib_module_names | {"gymnasium", "numpy", "rlwandb_callbacks"}
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_SPACES = ("action_space", "observation_space", "single_action_space", "single_observation_space")


def is_user_code(value: Any, package: str = "") -> bool:
    """Returns whether a class or function belongs to no library.

    Args:
        value: Class or function.
        package: Top-level package of the user, which may be installed as libraries are.
    """
    module = getattr(value, "__module__", None)
    if not isinstance(module, str):
        return isinstance(value, FunctionType)
    return bool(package and top_package(module) == package) or not _is_library(module)


def top_package(module: str) -> str:
    """Returns the first part of the name of a module, empty for libraries that are known to be none of the user's."""
    top = module.partition(".")[0]
    return "" if top in _LIBRARIES else top


@functools.lru_cache(maxsize=4096)
def _is_library(module: str) -> bool:
    if not top_package(module):
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return isinstance(file, str) and not _INSTALLED.isdisjoint(PurePath(file).parts)


def used_by_code(value: Any, package: str) -> Iterator[tuple[str, Any]]:
    """Yields names and values that the code of a value uses, besides its attributes and entries.

    These are the users' classes of an object and its slots, the methods of a class and the values in its body, the
    global variables of a function, the target of a weak reference, and the spaces of an environment, which have random
    generators.
    """
    if type(value) in PLAIN_TYPES:
        return
    if isinstance(value, type):
        for name, member in vars(value).items():
            yield name, _function_of(member)
    elif isinstance(value, FunctionType):
        yield from vars(value).items()
        if is_user_code(value, package):
            variables = value.__globals__
            yield from ((name, variables[name]) for name in global_names(value.__code__) if name in variables)
    elif isinstance(value, gym.Env | gym.vector.VectorEnv):
        yield from _spaces(value)
    elif isinstance(value, weakref.ref):
        yield "", value()
    else:
        yield from (("", cls) for cls in type(value).__mro__ if is_user_code(cls, package))
        yield from (item for namespace in namespaces(value) for item in namespace.items())


def _function_of(member: Any) -> Any:
    """Returns the function of a method, property or decorator in the body of a class; other values as they are."""
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    if isinstance(member, property):
        return member.fget
    return member.func if isinstance(member, functools.cached_property) else member


def _spaces(env: Any) -> Iterator[tuple[str, Any]]:
    for name in _SPACES:
        with contextlib.suppress(Exception):  # a property of the user's may raise anything
            yield name, getattr(env, name, None)
