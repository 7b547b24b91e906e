"""Values that other threads use, such as a replay memory that is filled in the background."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from rlwandb_callbacks.policies.namespaces import global_names
from rlwandb_callbacks.policies.reachable import reachable
from rlwandb_callbacks.policies.user_code import is_user_code

_INTERNALS = frozenset(vars(threading.Thread()))


def values_of_threads(package: str = "") -> dict[int, Any]:
    """Returns the objects and containers that users' code in other running threads uses, by their ids.

    What changes in them during an evaluation may be the work of such a thread, so that nothing can be restored. The
    networks themselves are left out: if a thread runs a method of one, the values are those that the method names.

    Args:
        package: Top-level package of the user, which may be installed as libraries are.
    """
    ours = (threading.main_thread(), threading.current_thread())
    threads = [each for each in threading.enumerate() if each not in ours]
    roots = [root for thread in threads for root in _roots(thread, package) if not isinstance(root, nn.Module)]
    return {id(part.value): part.value for part in reachable(*roots, networks=False)} if roots else {}


def _roots(thread: threading.Thread, package: str) -> Iterator[Any]:
    """Yields what a thread runs and its arguments, if the code is the user's."""
    attributes = dict(vars(thread))
    target = attributes.get("_target") or thread.run
    while isinstance(target, functools.partial):
        yield from (*target.args, *target.keywords.values())
        target = target.func
    function = target.__func__ if isinstance(target, MethodType) else target
    if not is_user_code(function, package):
        return
    yield function
    yield from attributes.get("_args") or ()
    yield from (attributes.get("_kwargs") or {}).values()
    yield from (value for name, value in attributes.items() if name not in _INTERNALS)
    owner = getattr(target, "__self__", None)
    yield from _named_attributes(owner, function) if isinstance(owner, nn.Module) else (owner,)


def _named_attributes(owner: Any, function: Any) -> Iterator[Any]:
    """Yields the attributes of an object that one of its methods names, or a method that this one calls."""
    waiting, seen = [function], {function}
    while waiting:
        code = getattr(waiting.pop(), "__code__", None)
        for name in global_names(code) if code is not None else ():
            if name in vars(owner):
                yield vars(owner)[name]
            method = inspect.getattr_static(type(owner), name, None)
            if isinstance(method, FunctionType) and method not in seen:
                seen.add(method)
                waiting.append(method)
