"""Lightning callbacks that show in Weights & Biases what a reinforcement-learning agent is doing.

The stub ``__init__.pyi`` lists the exports. They are imported when they are first used: importing the package imports
neither Lightning nor torch nor wandb.
"""

from __future__ import annotations

import sys
from typing import Any

from rlwandb_callbacks.core.lazy_exports import lazy_exports

_export, __dir__, __all__ = lazy_exports(__name__, __file__)


def __getattr__(name: str) -> Any:
    found = _export(name)
    # Exports are not cached, so that each look-up can adopt a Lightning that was imported in the meantime.
    if lightning := sys.modules.get(f"{__name__}.callbacks.lightning_namespaces"):
        lightning.adopt_loaded_namespaces()
    return found
