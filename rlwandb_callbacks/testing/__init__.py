"""Helpers for tests of users' modules: a reader of offline runs, a tracker in memory, tiny environments and modules.

The stub ``__init__.pyi`` lists the exports. They are imported when they are first used: the modules need Lightning, and
the reader needs wandb.

Example:
    >>> from rlwandb_callbacks.testing import MemoryTracker
    >>> tracker = MemoryTracker()
    >>> tracker.write({"trainer/global_step": 7}, {})
    >>> tracker.rows
    [{'trainer/global_step': 7}]
"""

from __future__ import annotations

import warnings
from typing import Any

from rlwandb_callbacks.core.lazy_exports import lazy_exports

_export, __dir__, __all__ = lazy_exports(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "MemorySink":
        warnings.warn(
            "rlwandb_callbacks.testing.MemorySink was renamed; use MemoryTracker.", DeprecationWarning, stacklevel=2
        )
        name = "MemoryTracker"
    return _export(name)
