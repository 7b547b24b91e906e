"""Loggers of a Trainer beside W&B, such as ``CSVLogger`` and ``TensorBoardLogger``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlwandb_callbacks.callbacks.lightning_namespaces import is_a

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


def log_to_others(trainer: Trainer, numbers: Mapping[str, float], *, step: float) -> None:
    """Passes numbers to the loggers of a Trainer that are no ``WandbLogger``, whose run has them already.

    Args:
        trainer: The Trainer.
        numbers: Numbers by the names that they get.
        step: The step of Lightning's own rows.

    Raises:
        Exception: The first error of a logger, after all loggers were called.
    """
    errors: list[Exception] = []
    for logger in trainer.loggers:
        if not numbers or is_a(logger, "WandbLogger"):
            continue
        try:
            logger.log_metrics(metrics=dict(numbers), step=int(step))
        except Exception as error:  # noqa: BLE001  # raised below, as one logger must not keep numbers from another
            errors.append(error)
    if errors:
        raise errors[0]
