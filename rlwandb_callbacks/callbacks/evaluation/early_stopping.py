"""Keeps ``EarlyStopping`` from counting reads for which an evaluation had no number."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.lightning_namespaces import is_a

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


class UncountedReads:
    """Takes back, ahead of it, the count of a read that finds no number of the present weights.

    ``EarlyStopping`` counts its reads without improvement. Where an evaluation fails, or has a return that is not
    finite, the next read finds an older number or a placeholder and says nothing about the policy, so that ``patience``
    such evaluations would end the training.
    """

    def __init__(self) -> None:
        self._lowered: dict[int, int] = {}  # wait_count that was set, by the position of the callback

    def update(self, trainer: Trainer, *, missing: Collection[str], found: Collection[str]) -> None:
        """Lowers the count of callbacks that monitor missing numbers, once for each of their reads.

        Args:
            trainer: The Trainer.
            missing: Keys without a number of the present weights.
            found: Keys with one.
        """
        for place, callback in enumerate(_early_stopping(trainer)):
            is_unread = self._lowered.get(place) == callback.wait_count
            if callback.monitor in missing and not is_unread:
                callback.wait_count -= 1
                self._lowered[place] = callback.wait_count
            elif callback.monitor in found and place in self._lowered:
                callback.wait_count += int(is_unread)
                del self._lowered[place]


def _early_stopping(trainer: Any) -> list[Any]:
    found = [callback for callback in trainer.callbacks if is_a(callback, "EarlyStopping")]
    return [callback for callback in found if isinstance(getattr(callback, "wait_count", None), int)]
