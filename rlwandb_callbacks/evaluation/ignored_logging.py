"""Lets policies call ``self.log`` while they are evaluated.

Lightning refuses such calls in hooks that may not log, which would end the training, and would count them among the
numbers of the training in other hooks.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from types import MethodType
from typing import Any

from torch import nn

from rlwandb_callbacks.core.class_names import has_base_named

LOGGING_METHODS = ("log", "log_dict")


@contextlib.contextmanager
def ignored_logging(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Ignores what LightningModules among some networks log in the block."""
    owners = [vars(network) for network in networks if has_base_named(type(network), "LightningModule")]
    before = [{name: owner[name] for name in LOGGING_METHODS if name in owner} for owner in owners]
    for owner in owners:
        owner.update(dict.fromkeys(LOGGING_METHODS, _ignore))
    try:
        yield
    finally:
        for owner, methods in zip(owners, before, strict=True):
            for name in LOGGING_METHODS:
                owner.pop(name, None)
            owner.update(methods)


def ignored_if_it_logs(value: Any) -> Any:
    """Returns a function that does nothing for a method by which helpers log, and other values as they are."""
    return _ignore if _logs(value) else value


def _logs(value: Any) -> bool:
    method = value.func if isinstance(value, functools.partial) else value
    if not isinstance(method, MethodType) or method.__name__ not in LOGGING_METHODS:
        return False
    return has_base_named(type(method.__self__), "LightningModule")


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Takes the arguments of ``LightningModule.log`` and ``log_dict``."""
