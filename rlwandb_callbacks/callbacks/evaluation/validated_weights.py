"""Weights that validation sees where hooks of users replace them, as Lightning's own averaging callbacks do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from rlwandb_callbacks.callbacks.evaluation.monitors import is_ours
from rlwandb_callbacks.callbacks.evaluation.weight_tensors import Weights, copied_weights
from rlwandb_callbacks.callbacks.lightning_namespaces import LightningCallback, averages_weights, is_a
from rlwandb_callbacks.core.class_names import LIGHTNING_PACKAGES, is_overridden

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

HOOKS = ("on_validation_start", "on_validation_epoch_start", "on_validation_model_eval")
LIBRARIES = LIGHTNING_PACKAGES | {"torchmetrics", "torch"}
OTHER_WEIGHTS = (
    "ModelCheckpoint monitors {key}, and evaluations play the weights that validation_step saw. After validation, the "
    "module has other ones, and checkpoint files hold these unless on_save_checkpoint replaces them. Hooks that may "
    "have replaced the weights for validation: {hooks}."
)


class ValidatedWeights:
    """Copies of the weights that a validation batch has seen, until they are evaluated.

    There are only copies where the module or a callback that is not Lightning's has a hook that may replace weights.

    Args:
        warn_once: Called with a message and ``kind=``.
    """

    def __init__(self, warn_once: Callable[..., None]) -> None:
        self._warn_once = warn_once
        self._seen: Weights = {}

    def clear(self) -> None:
        """Drops the copies."""
        self._seen = {}

    def note(self, trainer: Trainer, module: LightningModule) -> None:
        """Copies the weights of the first batch of a validation."""
        if not self._seen and replacing_hooks(trainer, module):
            self._seen = copied_weights(module)

    def take(self, trainer: Any, module: LightningModule) -> Weights:
        """Returns and drops the copies if the module has other parameters now; else nothing."""
        seen, self._seen = self._seen, {}
        parameters = {name: parameter for name, parameter in module.named_parameters() if name in seen}
        if all(_equal(parameter, seen[name]) for name, parameter in parameters.items()):
            return {}
        checkpoints = [callback for callback in trainer.callbacks if is_a(callback, "ModelCheckpoint")]
        key = next((checkpoint.monitor for checkpoint in checkpoints if is_ours(checkpoint.monitor)), None)
        if key is not None and trainer.state.fn == "fit":
            hooks = ", ".join(replacing_hooks(trainer, module))
            self._warn_once(OTHER_WEIGHTS.format(key=key, hooks=hooks), kind="validated weights")
        return seen


def replacing_hooks(trainer: Any, module: LightningModule) -> list[str]:
    """Returns the hooks of users that run before validation; none if Lightning's own callback averages weights."""
    others = [callback for callback in trainer.callbacks if not isinstance(callback, LightningCallback)]
    if any(averages_weights(callback) for callback in others):
        return []
    return [
        f"{type(owner).__name__}.{hook}"
        for owner in (module, *others)
        for hook in HOOKS
        if is_overridden(owner, hook, packages=LIBRARIES)
    ]


def _equal(parameter: torch.Tensor, seen: torch.Tensor) -> bool:
    """Returns whether two tensors are equal; parameters that are NaN are what they were."""
    return torch.equal(parameter, seen) or torch.equal(parameter.nan_to_num(), seen.nan_to_num())
