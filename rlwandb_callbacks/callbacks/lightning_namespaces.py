"""Serves ``pytorch_lightning`` and ``lightning.pytorch``, which hold the same classes twice.

A class that inherits both ``Callback`` classes is accepted by the Trainers and the command lines of both packages.
Importing a second Lightning takes seconds, so only packages that the program has loaded are inherited; one that is
loaded later is inherited as soon as a callback is imported or made. Objects of Lightning are recognized by the names of
their classes, as ``isinstance`` fails across the two packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.core.class_names import has_base_named

if TYPE_CHECKING:
    from pytorch_lightning import Callback, Trainer

NAMESPACES = ("pytorch_lightning", "lightning.pytorch")


def loaded_callback_classes() -> tuple[type[Any], ...]:
    """Returns the ``Callback`` classes of the loaded Lightnings; that of an installed one if none is loaded."""
    loaded = [name for name in NAMESPACES if name in sys.modules]
    if not loaded:
        loaded = [name for name in NAMESPACES if importlib.util.find_spec(name.split(".")[0])][:1]
    return tuple(importlib.import_module(f"{name}.callbacks").Callback for name in loaded)


if TYPE_CHECKING:
    LightningCallback = Callback
else:

    class LightningCallback(*loaded_callback_classes()):
        """Base class of all callbacks of this package."""

        def __init__(self) -> None:
            adopt_loaded_namespaces()
            super().__init__()


def adopt_loaded_namespaces() -> None:
    """Makes all callbacks instances of every Lightning that was loaded since they were defined."""
    bases = loaded_callback_classes()
    if LightningCallback.__bases__ != bases:
        LightningCallback.__bases__ = bases


def is_a(instance: Any, class_name: str) -> bool:
    """Returns whether an object is an instance of a class of that name, whichever Lightning defines it.

    Example:
        >>> is_a(True, "int"), is_a(True, "float")
        (True, False)
    """
    return has_base_named(type(instance), class_name)


def find_wandb_logger(trainer: Trainer) -> Any:
    """Returns the ``WandbLogger`` of a Trainer without starting its run; None if it has none."""
    return next((logger for logger in trainer.loggers if is_a(logger, "WandbLogger")), None)


def move_before_monitors(trainer: Any) -> None:
    """Moves our callbacks before the first ``EarlyStopping``, which looks for numbers that they publish.

    The Trainer's list is replaced rather than changed, as Lightning may be iterating over it.
    """
    callbacks = list(trainer.callbacks)
    monitors = [callback for callback in callbacks if is_a(callback, "EarlyStopping")]
    ours = [callback for callback in callbacks if isinstance(callback, LightningCallback)]
    if monitors and ours and callbacks.index(monitors[0]) < callbacks.index(ours[-1]):
        others = [callback for callback in callbacks if callback not in ours]
        place = others.index(monitors[0])
        trainer.callbacks = [*others[:place], *ours, *others[place:]]
