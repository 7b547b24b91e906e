"""Rows after optimizer steps that a ``GradScaler`` skipped, which are no updates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlwandb_callbacks.callbacks.loss_scale import LossScale
from rlwandb_callbacks.callbacks.metrics.numbers import to_numbers
from rlwandb_callbacks.callbacks.skipped_steps import MAX_SKIPPED_STEPS


class SkippedRows:
    """Decides after which skipped steps a row is due, as rows are else due by updates.

    Args:
        loss_scale: Scale of the losses, and the steps that were skipped.
        interval: Skipped steps between two rows, after the tenth in a row.
    """

    def __init__(self, loss_scale: LossScale, interval: int) -> None:
        self._loss_scale, self._interval = loss_scale, interval
        self.start_row()

    def start_row(self) -> None:
        """Starts again after a row was written."""
        self.is_pending = False  # a step was skipped since the latest row
        self._has_reported_loss = False

    def add_batch(self) -> None:
        """Notes what was skipped in a batch."""
        self.is_pending = self.is_pending or self._loss_scale.skipped_steps.has_new

    def is_due(self) -> bool:
        """Returns whether the latest batch needs a row although it is no update, as many steps were skipped."""
        skipped = self._loss_scale.skipped_steps
        is_later = skipped.in_row > MAX_SKIPPED_STEPS and skipped.in_row % self._interval == 0
        return skipped.has_new and (skipped.in_row == MAX_SKIPPED_STEPS or is_later)

    def losses_to_report(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Returns the losses among the latest metrics if one is NaN or infinite; reports it once between two rows.

        A scale that is too large makes gradients infinite, but no loss.
        """
        if self._has_reported_loss or not self._loss_scale.skipped_steps.has_new:
            return {}
        losses = to_numbers({metric: value for metric, value in metrics.items() if "loss" in metric})
        self._has_reported_loss = not all(map(math.isfinite, losses.values()))
        return losses if self._has_reported_loss else {}

    def numbers(self, *, with_scale: bool) -> dict[str, float]:
        """Returns ``amp_scale`` if wanted, and ``amp_skipped_steps``, the latest ones in a row, if there are any."""
        numbers = to_numbers(self._loss_scale.values()) if with_scale else {}
        in_row = self._loss_scale.skipped_steps.in_row
        return {**numbers, **({"amp_skipped_steps": in_row} if in_row else {})}


def without_norms(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out gradient norms.

    Example:
        >>> without_norms({"loss": 1.0, "grad_norm": float("inf"), "actor_grad_norm": float("inf")})
        {'loss': 1.0}
    """
    return {metric: value for metric, value in metrics.items() if not metric.endswith("grad_norm")}
