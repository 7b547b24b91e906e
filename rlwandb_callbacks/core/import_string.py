"""Finds objects by the path under which Python imports them."""

from __future__ import annotations

import importlib
from typing import Any


def import_object(path: str) -> Any:
    """Imports ``package.module:name`` or ``package.module.name``.

    Raises:
        ImportError: If there is no such module.
        AttributeError: If the module has no such name.

    Example:
        >>> import_object("math:tau") == import_object("math.tau")
        True
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
