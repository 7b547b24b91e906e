"""Finding the callbacks of this package in a Trainer, and their sessions."""

from __future__ import annotations

from typing import Any

from rlwandb_callbacks.callbacks.session import Session


def sessions_in(trainer: Any, own: Session) -> list[Session]:
    """Returns the sessions of all callbacks of this package in a Trainer; the parts of a group share one."""
    found = [own]
    for part in parts_in(trainer):
        if part.session not in found:
            found.append(part.session)
    return found


def parts_in(trainer: Any) -> list[Any]:
    """Returns all callbacks of this package in a Trainer, those of a group one by one, in their order."""
    groups = (getattr(callback, "callbacks", None) for callback in trainer.callbacks)  # other libraries may have it too
    parts = (
        part
        for callback, group in zip(trainer.callbacks, groups, strict=True)
        for part in (group if isinstance(group, list) else [callback])
    )
    return [part for part in parts if isinstance(getattr(part, "session", None), Session)]
