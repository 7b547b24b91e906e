"""Weights that an evaluation plays where callbacks of Lightning keep an average of them.

``WeightAveraging`` and ``EMAWeightAveraging`` validate the average, save it in checkpoints and leave it in the module.
``StochasticWeightAveraging`` validates and saves the weights that are trained, and leaves the average in the module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rlwandb_callbacks.callbacks.evaluation.played_networks import memories, played_memories
from rlwandb_callbacks.callbacks.evaluation.weight_tensors import Weights, weights_of
from rlwandb_callbacks.callbacks.lightning_namespaces import averages_weights
from rlwandb_callbacks.policies.resolve import policy_name

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

KEY = "eval/averaged_weights"
AVERAGING_STATE = "averaging_state"  # key of a checkpoint whose state_dict holds an average
NOT_BEGUN = (
    "{callback} has not averaged any weights after {steps:,} steps{setting}. Until it does, its average holds the "
    "weights with which training started: validation and checkpoint files have these, evaluations play them, and a "
    "training that ends before leaves them in the module."
)
NOTHING_AVERAGED = (
    "{callback} has averaged no epoch and replaced the trained weights by those with which training started, so the "
    "last evaluation is of these. Let it begin within the training (swa_epoch_start)."
)
SEVERAL = (
    "{names} both swap an average in for validation, and Lightning swaps them back in the same order: from the first "
    "validation on, an average is trained, and the averages are exchanged. Evaluations play what checkpoint files "
    "hold. Use one of them."
)
OWN_WEIGHTS = (
    "evaluation.policy {policy!r} has none of the parameters that {name} averages, so its own weights are "
    "evaluated. Pass the name of the policy in the module to evaluate the average."
)
STARTING_OPTIONS = ("update_starting_at_step", "update_starting_at_epoch")


@dataclass(frozen=True)
class PlayedWeights:
    """Weights of one evaluation.

    Args:
        values: Parameters and buffers to play; empty for those that the module has.
        is_average: Whether they are others than the trained ones, such as an average; None if it is not known that
            there are others.
    """

    values: Weights = field(default_factory=dict)
    is_average: bool | None = None

    def numbers(self) -> dict[str, float]:
        """Returns ``eval/averaged_weights``, 1 for an average and 0 for trained weights, if there are both."""
        return {} if self.is_average is None else {KEY: float(self.is_average)}


class AveragedWeights:
    """Weights that the evaluations of one training play.

    Args:
        policy: ``evaluation.policy``.
        warn_once: Called with a message and ``kind=``.
    """

    def __init__(self, policy: Any, warn_once: Callable[..., None]) -> None:
        self._policy, self._warn_once = policy, warn_once
        self._is_loaded = False

    def note_checkpoint(self, trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
        """Notes whether the module has the averaged weights of a checkpoint that is evaluated, not trained."""
        self._is_loaded = trainer.state.fn != "fit" and AVERAGING_STATE in checkpoint

    def choose(
        self, trainer: Trainer, module: nn.Module, *, seen: Weights | None = None, after_training: bool = False
    ) -> PlayedWeights:
        """Returns the weights that validation sees and checkpoints hold.

        Args:
            trainer: The Trainer.
            module: The module.
            seen: Weights that hooks of users gave to the module for the validation before, if it has others now.
            after_training: Whether the weights are those that the module has, as callbacks do not replace them again.
        """
        if seen:
            return PlayedWeights(seen, is_average=self._shares_parameters(module))
        callbacks = [callback for callback in _callbacks(trainer) if averages_weights(callback)]
        if not callbacks and not self._is_loaded:
            return PlayedWeights()
        validated = [callback for callback in callbacks if _is_validated(callback)]
        shown = validated[-1] if validated else None  # the last one replaces the weights of the others
        if len(validated) > 1:
            names = " and ".join(type(callback).__name__ for callback in validated)
            self._warn_once(SEVERAL.format(names=names), kind="several averages")
        average = {} if shown is None or after_training else _average_of(shown)
        in_fit = trainer.state.fn == "fit"
        transferred = [c for c in callbacks if in_fit and _has_transferred(c, module, after_training=after_training)]
        kept = next((callback for callback in reversed(callbacks) if callback in [shown, *transferred]), None)
        if kept is None and not self._is_loaded:  # outside fit, the module may hold the average of an earlier training
            return PlayedWeights(is_average=False if in_fit else None)
        name = "the training of the checkpoint" if kept is None else type(kept).__name__
        if kept is not None:
            self._warn_if_not_begun(kept, trainer)
        if not self._shares_parameters(module):
            policy = policy_name(module, self._policy)
            self._warn_once(OWN_WEIGHTS.format(policy=policy, name=name), kind="own weights")
            return PlayedWeights(average, is_average=False)
        return PlayedWeights(average, is_average=True)

    def _warn_if_not_begun(self, callback: Any, trainer: Trainer) -> None:
        name = type(callback).__name__
        if not _is_validated(callback):
            if not callback.n_averaged:
                self._warn_once(NOTHING_AVERAGED.format(callback=name), kind="average")
        elif not callback._average_model.n_averaged:  # noqa: SLF001  # Lightning has no public access
            values = {option: getattr(callback, option, None) for option in STARTING_OPTIONS}
            given = [f"{option}={value}" for option, value in values.items() if value is not None]
            setting = f" ({', '.join(given)})" if given else ""
            message = NOT_BEGUN.format(callback=name, steps=trainer.global_step, setting=setting)
            self._warn_once(message, kind="average")

    def _shares_parameters(self, module: nn.Module) -> bool:
        """Returns whether parameters of the module are played, as far as those of the policy can be found."""
        played = played_memories(module, self._policy)
        return not played or not played.isdisjoint(memories(weights_of(module).values()))


def _average_of(callback: Any) -> Weights:
    held: AveragedModel = callback._average_model  # noqa: SLF001  # Lightning has no public access
    return weights_of(held.module)


def _callbacks(trainer: Trainer) -> list[Any]:
    return list(getattr(trainer, "callbacks", ()))


def _is_validated(callback: Any) -> bool:
    """Returns whether a callback keeps an average at present, and gives it to the module for validation."""
    return isinstance(getattr(callback, "_average_model", None), AveragedModel)


def _has_transferred(callback: Any, module: nn.Module, *, after_training: bool) -> bool:
    """Returns whether ``StochasticWeightAveraging`` has given its average to the module."""
    average = getattr(callback, "_average_model", None)
    has_begun = after_training or getattr(callback, "n_averaged", None)
    if not has_begun or not isinstance(average, nn.Module) or _is_validated(callback):
        return False
    if getattr(callback, "momenta", None):  # for statistics of batch norm, after which an optimizer has stepped again
        return True
    pairs = zip(module.parameters(), average.parameters(), strict=False)
    return all(torch.equal(mine, theirs.to(mine)) for mine, theirs in pairs)
