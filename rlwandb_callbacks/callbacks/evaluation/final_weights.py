"""Notices weights that a module is given when its training is over, by whatever callback or hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rlwandb_callbacks.callbacks.evaluation.played_networks import played_names
from rlwandb_callbacks.callbacks.evaluation.weight_tensors import Digest, Weights, digest, weights_of
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.core.class_names import LIGHTNING_PACKAGES, is_overridden

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule


class FinalWeights:
    """Compares the weights that ``fit`` returns with those of the last evaluation, or of the end of training.

    If batches have followed the last evaluation, it is not repeated for what they have trained: then the first weights
    that were noted after the last batch count. Networks that the policy does not reach do not count, as hooks of the
    module may still update a target network after the last evaluation. If the policy may reach all of them, what the
    module's own ``on_train_batch_end`` changes does not count.

    Args:
        policy: ``evaluation.policy``.

    Attributes:
        device: Device of the module while it was trained, which Lightning has moved to the CPU before ``on_fit_end``.
    """

    def __init__(self, policy: Any = None) -> None:
        self._policy = policy
        self.device = torch.device("cpu")
        self._noted: Digest | None = None
        self._noted_at: int | None = None
        self._is_of_module = True  # rather than of weights that the module has during validation only

    def note_played(self, module: LightningModule, weights: Weights, updates: int) -> None:
        """Notes the weights of an evaluation."""
        self._noted, self._noted_at = self._digest(module, weights), updates
        self._is_of_module = not weights

    def note_trained(self, module: LightningModule, updates: int) -> None:
        """Notes the weights after the last batch, unless an evaluation or an earlier call has seen its update."""
        self.device = module.device
        if self._noted_at != updates:
            self.note_played(module, {}, updates)

    def note_last_epoch(self, module: LightningModule, updates: int) -> None:
        """Notes the weights after the last batch, and after the module's ``on_train_batch_end``."""
        is_own_hook = is_overridden(module, "on_train_batch_end", packages=LIGHTNING_PACKAGES)
        if is_own_hook and self._is_of_module and len(played_names(module, self._policy)) == len(weights_of(module)):
            self.note_played(module, {}, updates)
        self.note_trained(module, updates)

    def have_changed(self, ranks: Ranks, module: LightningModule) -> bool:
        """Returns whether the module has other weights than those that were noted last.

        All ranks must call it; the weights of rank zero count.
        """
        return ranks.broadcast(ranks.is_zero and self._noted is not None and self._digest(module) != self._noted)

    def _digest(self, module: LightningModule, weights: Weights | None = None) -> Digest:
        return digest(module, weights, names=played_names(module, self._policy))
