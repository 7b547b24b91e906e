"""Notices callbacks that were given to ``lightning.fabric.Fabric``, which calls no hooks of a Trainer."""

from __future__ import annotations

import warnings
from typing import Any


class WarnsInFabric:
    """Warns once if Fabric calls one of the two hooks of its own, and ignores all other hooks from then on.

    Fabric takes callbacks of any class and calls nothing when it is made. It calls ``on_after_setup`` when a module is
    set up, ``on_after_optimizer_step`` after each step, and the hooks that the user's loop names, with any arguments.
    """

    def on_after_setup(self, **_: Any) -> None:
        """Warns that nothing will be logged."""
        self._warn_in_fabric()

    def on_after_optimizer_step(self, **_: Any) -> None:
        """Warns that nothing will be logged."""
        self._warn_in_fabric()

    def _warn_in_fabric(self) -> None:
        if vars(self).get("setup") is ignore_hook:
            return
        hooks = (name for name in dir(type(self)) if name.startswith("on_") or name in ("setup", "teardown"))
        own = vars(WarnsInFabric)
        vars(self).update({hook: ignore_hook for hook in hooks if hook not in own})
        warnings.warn(
            f"rlwandb: {type(self).__name__} is among the callbacks of lightning.fabric.Fabric, which has no Trainer "
            "and calls none of its hooks, so nothing is logged. Use lightning.pytorch.Trainer(callbacks=[...]), or log "
            "to W&B in your loop.",
            UserWarning,
            stacklevel=2,
        )


def ignore_hook(*_: Any, **__: Any) -> None:
    """Replaces the hooks of a callback that was given to Fabric, whose arguments are not those of a Trainer."""
