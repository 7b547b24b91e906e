"""Values that a module logs by ``self.log``, each returned once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.lightning_results import computed_metrics, epoch_values, logged_values

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


class LoggedValues:
    """Reads what was logged since the previous reading; Lightning itself holds a value until it is replaced."""

    def __init__(self) -> None:
        self._of_batches: dict[str, Any] = {}
        self._before_epoch_end: dict[int, Any] = {}  # computed metrics by id; keeps the objects alive

    def of_batches(self, trainer: Trainer) -> dict[str, Any]:
        """Returns the latest value of each metric that was logged for a batch since the previous reading."""
        seen = self._of_batches  # which keeps the objects alive
        logged = logged_values(trainer).items()
        new = {name: value for name, value in logged if value is not None and value is not seen.get(name)}
        seen.update(new)
        return new

    def of_epoch(self, trainer: Trainer) -> dict[str, Any]:
        """Returns the metrics that Lightning has computed since :meth:`epoch_ends`."""
        return {name: value for name, value in epoch_values(trainer).items() if id(value) not in self._before_epoch_end}

    def epoch_ends(self, trainer: Trainer) -> None:
        """Notes what is older than the metrics of an epoch that ends: those of earlier epochs and of validation.

        Lightning keeps them under the same names, and computes no others if a hook of the epoch's end raises an error.
        """
        self._before_epoch_end = {id(value): value for value in computed_metrics(trainer).values()}
