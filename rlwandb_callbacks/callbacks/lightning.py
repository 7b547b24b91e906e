"""One base class that ``pytorch_lightning`` and ``lightning.pytorch`` both accept.

The two packages hold the same classes twice. A class that inherits both ``Callback`` classes is taken by both Trainers
and both command lines. Importing a second Lightning costs seconds, so only what the program has loaded is inherited;
what is loaded later is inherited as soon as a callback is named or made.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

__all__ = ["LightningCallback", "adopt_loaded_namespaces", "loaded_callback_classes"]

NAMESPACES = ("pytorch_lightning", "lightning.pytorch")


def loaded_callback_classes() -> tuple[type[Any], ...]:
    """The ``Callback`` classes of the Lightnings that are loaded; of an installed one where none is."""
    loaded = [name for name in NAMESPACES if name in sys.modules]
    if not loaded:
        loaded = [name for name in NAMESPACES if importlib.util.find_spec(name.split(".")[0])][:1]
    return tuple(importlib.import_module(f"{name}.callbacks").Callback for name in loaded)


if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback as LightningCallback
else:
    LightningCallback = type("LightningCallback", loaded_callback_classes(), {"__module__": __name__})


def adopt_loaded_namespaces() -> None:
    """Makes all callbacks instances of whatever Lightning was loaded since they were defined."""
    bases = loaded_callback_classes()
    if LightningCallback.__bases__ != bases:
        LightningCallback.__bases__ = bases
