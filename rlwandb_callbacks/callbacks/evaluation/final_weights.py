"""Notices weights that a module is given when its training is over, by whatever callback or hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rlwandb_callbacks.callbacks.evaluation.weight_tensors import Digest, Weights, digest
from rlwandb_callbacks.callbacks.ranks import Ranks

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class FinalWeights:
    """Compares the weights that ``fit`` returns with those of the last evaluation, or of the end of training.

    If batches have followed the last evaluation, it is not repeated for what they have trained: then the first weights
    that were noted after the last batch count.

    Attributes:
        device: Device of the module while it was trained, which Lightning has moved to the CPU before ``on_fit_end``.
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._noted: Digest | None = None
        self._noted_at: int | None = None

    def note_played(self, module: LightningModule, weights: Weights, updates: int) -> None:
        """Notes the weights of an evaluation."""
        self._noted, self._noted_at = digest(module, weights), updates

    def note_trained(self, module: LightningModule, updates: int) -> None:
        """Notes the weights after the last batch, unless an evaluation or an earlier call has seen its update."""
        self.device = module.device
        if self._noted_at != updates:
            self._noted, self._noted_at = digest(module), updates

    def have_changed(self, trainer: Trainer, module: LightningModule) -> bool:
        """Returns whether the module has other weights than those that were noted last.

        All ranks must call it; the weights of rank zero count.
        """
        return Ranks(trainer).broadcast(self._noted is not None and digest(module) != self._noted)
