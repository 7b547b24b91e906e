"""A module that ends its training by an error."""

from __future__ import annotations

from typing import Any

from rlwandb_callbacks.testing import TinyValidatedQ


class RaisesInTraining(TinyValidatedQ):
    """Module that raises an error in one batch, by default a ``RuntimeError("boom")`` in the first one."""

    def __init__(self, error: BaseException | None = None, *, epoch: int = 0, batch_idx: int = 0) -> None:
        super().__init__()
        self.error, self.failing = error or RuntimeError("boom"), (epoch, batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        if (self.current_epoch, batch_idx) == self.failing:
            raise self.error
        return super().training_step(batch, batch_idx)
