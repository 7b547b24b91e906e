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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from rlwandb_callbacks.core.class_names import has_base_named

if TYPE_CHECKING:
    from pytorch_lightning import Callback, Trainer

F = TypeVar("F", bound=Callable[..., Any])
NAMESPACES = ("pytorch_lightning", "lightning.pytorch")
SHARDING_STRATEGIES = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")
AVERAGING_CALLBACKS = ("WeightAveraging", "StochasticWeightAveraging")


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


def shards_parameters(trainer: Trainer) -> bool:
    """Returns whether the strategy distributes each parameter over processes."""
    return any(is_a(trainer.strategy, name) for name in SHARDING_STRATEGIES)


def find_wandb_logger(trainer: Trainer) -> Any:
    """Returns the ``WandbLogger`` of a Trainer without starting its run; None if it has none."""
    return next((logger for logger in trainer.loggers if is_a(logger, "WandbLogger")), None)


def averages_weights(callback: Any) -> bool:
    """Returns whether a callback averages the weights of the module."""
    return any(is_a(callback, name) for name in AVERAGING_CALLBACKS)


def may_share_key(state_dict: F) -> F:
    """Lets several callbacks of a Trainer have the same ``state_key``, given their method ``state_dict``.

    ``Trainer(…)`` refuses them otherwise, before any hook could say what to set, if it finds this method to be
    overridden; of a wrapper it looks at the method inside.
    """
    state_dict.__wrapped__ = LightningCallback.state_dict  # type: ignore[attr-defined]  # as functools.wraps does
    return state_dict


def arrange_callbacks(trainer: Any) -> None:
    """Moves our callbacks behind those that average weights, and before the first ``EarlyStopping``.

    In the same hook, averages are updated before they are played, and ``EarlyStopping`` looks for numbers that our
    callbacks publish. Callbacks with a monitor that stand before an averaging one are moved behind ours. The Trainer's
    list is replaced rather than changed, as Lightning may be iterating over it.
    """
    callbacks = list(trainer.callbacks)
    ours = [callback for callback in callbacks if isinstance(callback, LightningCallback)]
    others = [callback for callback in callbacks if callback not in ours]
    averaging = [i for i, callback in enumerate(callbacks) if averages_weights(callback)]
    stopping = [i for i, callback in enumerate(callbacks) if is_a(callback, "EarlyStopping")]
    if not ours or not (
        any(i > callbacks.index(ours[0]) for i in averaging) or any(i < callbacks.index(ours[-1]) for i in stopping)
    ):
        return
    end = 1 + max((i for i, callback in enumerate(others) if averages_weights(callback)), default=-1)
    readers = [callback for callback in others[:end] if getattr(callback, "monitor", None) is not None]
    others = [callback for callback in others if callback not in readers]
    end -= len(readers)
    first_stopping = next((i for i, callback in enumerate(others) if is_a(callback, "EarlyStopping")), len(others))
    place = len([callback for callback in callbacks[: callbacks.index(ours[-1])] if callback in others])
    place = max(end, min(place, first_stopping))
    trainer.callbacks = [*others[:place], *ours, *readers, *others[place:]]
