"""Hooks in which users' code finishes a module after the hooks of callbacks at the start of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlwandb_callbacks.core.class_names import is_overridden

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

LIGHTNING = frozenset({"pytorch_lightning", "lightning"})
START_HOOKS = ("on_fit_start", "on_train_start", "on_train_epoch_start")


def changes_late(module: LightningModule) -> bool:
    """Returns whether a module has hooks that Lightning calls after those of callbacks, before the first batch."""
    return any(is_overridden(module, hook, packages=LIGHTNING) for hook in START_HOOKS)


def may_be_finished_late(trainer: Trainer, module: LightningModule) -> bool:
    """Returns whether anything may still give a module what it lacks when ``on_fit_start`` of callbacks is called.

    That is the module, its data module, or a callback of the user's.
    """
    callbacks = [
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        if any(is_overridden(callback, hook, packages=LIGHTNING | {"rlwandb_callbacks"}) for hook in START_HOOKS)
    ]
    loads_data = is_overridden(module, "train_dataloader", packages=LIGHTNING)
    has_data_module = getattr(trainer, "datamodule", None) is not None
    return bool(callbacks) or loads_data or has_data_module or changes_late(module)
