"""Imports objects by their import path."""

from __future__ import annotations

import importlib
from typing import Any

from rlwandb_callbacks.core.process_settings import preserved_process_settings


def import_object(path: str) -> Any:
    """Imports an object by ``package.module:name`` or ``package.module.name``.

    Example:
        >>> import_object("math:tau") == import_object("math.tau")
        True
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    with preserved_process_settings():
        found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def find_object(path: str) -> Any:
    """Imports an object like :func:`import_object`; returns None if the path does not lead to one."""
    if ":" not in path and "." not in path:
        return None
    try:
        return import_object(path)
    except (ImportError, AttributeError, ValueError):
        return None
