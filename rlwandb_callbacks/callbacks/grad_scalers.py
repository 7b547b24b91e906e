"""Finds the ``torch.amp.GradScaler`` objects that a training uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

MAX_DEPTH = 4  # of attributes and entries below the module
MAX_ENTRIES = 64  # of a list or mapping
MAX_OBJECTS = 20_000
FOREIGN = ("builtins", "gymnasium", "lightning", "lightning_fabric", "numpy", "pytorch_lightning", "torch")
"""Packages whose objects hold no scalers of the user, except for modules of torch and their children."""


def precision_scaler(trainer: Trainer) -> GradScaler | None:
    """Returns the enabled scaler of the precision plugin: that of ``precision="16-mixed"``."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if is_enabled_scaler(scaler) else None


def is_enabled_scaler(value: Any) -> bool:
    """Returns whether a value is a ``GradScaler`` that scales."""
    return isinstance(value, GradScaler) and value.is_enabled() and hasattr(value, "_per_optimizer_states")


def find_scalers(trainer: Trainer, module: LightningModule) -> dict[str, GradScaler]:
    """Returns the enabled scalers by name: that of the precision plugin, and those that the module holds.

    The attributes of the module are searched, with lists, mappings, submodules and plain objects in them. Names are
    those of the attributes; no property is read.
    """
    own = precision_scaler(trainer)
    named = [] if own is None else [("precision", own)]
    found: dict[str, GradScaler] = {}
    for name, scaler in (*named, *_scalers_in(module)):
        if not any(scaler is each for each in found.values()):
            found[name if name not in found else f"{name}_{len(found)}"] = scaler
    return found


def _scalers_in(module: nn.Module) -> Iterator[tuple[str, GradScaler]]:
    """Yields scalers breadth first, each object once."""
    seen: set[int] = set()
    level: list[tuple[str, Any]] = [("", module)]
    for _ in range(MAX_DEPTH + 1):
        following: list[tuple[str, Any]] = []
        for name, value in level:
            if id(value) in seen or len(seen) > MAX_OBJECTS:
                continue
            seen.add(id(value))
            if is_enabled_scaler(value):
                yield name, value
            else:
                following += ((f"{name}_{key}".strip("_"), entry) for key, entry in _entries(value))
        level = following


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the attributes or entries of an object that may hold scalers, with their names."""
    if isinstance(value, str | bytes | int | float | Tensor | type) or hasattr(type(value), "__array__"):
        return
    if isinstance(value, nn.Module):
        yield from value._modules.items()  # noqa: SLF001  # named_children leaves out those that are listed twice
        yield from ((key, entry) for key, entry in vars(value).items() if key not in _INTERNAL)
    elif isinstance(value, dict):
        if len(value) <= MAX_ENTRIES:
            yield from ((str(key), entry) for key, entry in list(dict.items(value)))
    elif isinstance(value, list | tuple):
        if len(value) <= MAX_ENTRIES:
            yield from ((str(index), entry) for index, entry in enumerate(value))
    elif type(value).__module__.partition(".")[0] not in FOREIGN:
        yield from list(getattr(value, "__dict__", {}).items())


_INTERNAL = frozenset(vars(nn.Module())) | {"_trainer", "_fabric"}
