"""Evaluations of ``trainer.validate``, which runs in inference mode, in contrast to the validation of a fit."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import pytest
import torch

from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyValidatedQ

RETURN = "eval/return_mean"
BEST = 4.0  # mean of corridors of 2 to 6 cells


def evaluation(tracker: MemoryTracker) -> EvaluationCallback:
    settings = {"env": CorridorEnv, "policy": "policy", "episodes": 5}
    quiet = {"video_logger": False, "return_logger": False, "on_error": "raise"}
    return EvaluationCallback({"evaluation": settings, **quiet}, tracker=tracker)


class Ascends(TinyValidatedQ):
    """Takes the action to which the gradient of a score points."""

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            logits = torch.zeros(len(observations), 2, requires_grad=True)
            (gradient,) = torch.autograd.grad((logits * torch.tensor([0.0, 1.0])).sum(), logits)
        return gradient


@functools.lru_cache
def table(rows: int, tag: str) -> torch.Tensor:
    """Makes what is added to q-values, once for all batches of a size; ``tag`` separates tests."""
    return torch.ones(rows, 1)


class UsesTable(TinyValidatedQ):
    """Multiplies by a table that is made at first use, in playing and in training."""

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        right = torch.tensor([[0.0, 1.0]])
        return right * table(5, type(self).__name__)[: len(observations)]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        outputs = super().training_step(batch, batch_idx)
        factor = table(5, type(self).__name__)[:1, 0]
        return {**outputs, "loss": (outputs["loss"] * self.scale * factor).sum()}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class KeepsMemory(TinyValidatedQ):
    """Keeps a tensor that validation_step makes and that playing changes in place."""

    memory: Any = None

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.memory = torch.zeros(2)

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        if self.memory is not None:
            self.memory.add_(1.0)
        return torch.tensor([[0.0, 1.0]]).expand(len(observations), 2)


class Memory(NamedTuple):
    """Named memory of a recurrent policy."""

    hidden: torch.Tensor
    cells: list[tuple[torch.Tensor, ...]]


class KeepsTuple(KeepsMemory):
    """Keeps tensors in a named tuple and in tuples in it."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.hidden = Memory(torch.zeros(2), [(torch.zeros(2), torch.zeros(2))])
        self.largest = (torch.zeros(2, 2).max(dim=0), 1)

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "hidden"):
            for tensor in (self.hidden.hidden, *self.hidden.cells[0], self.largest[0].values):
                tensor.add_(1.0)
        return super().policy(observations)


@pytest.mark.parametrize("module", [Ascends, UsesTable, KeepsMemory, KeepsTuple])
@pytest.mark.parametrize("stages", [["validate"], ["validate", "fit"], ["fit", "validate", "fit"]])
def test_policy_works_in_trainer_validate_as_in_fit_and_training_goes_on(
    fit: Any, module: Any, stages: list[str]
) -> None:
    table.cache_clear()
    tracker, trained = MemoryTracker(), module(batches=4)
    trainer = fit(TinyValidatedQ(batches=1), max_epochs=0)
    trainer.callbacks.append(evaluation(tracker))
    for count, stage in enumerate(stages, start=1):
        trainer.fit_loop.max_epochs = count
        getattr(trainer, stage)(trained)
    assert set(tracker.column(RETURN)) == {BEST}
    assert len(tracker.column(RETURN)) >= len(stages)
    assert trainer.global_step >= 4 * stages.count("fit")


def test_tensor_that_validation_step_keeps_is_as_before(fit: Any) -> None:
    tracker, module = MemoryTracker(), KeepsMemory(batches=1)
    trainer = fit(TinyValidatedQ(batches=1), max_epochs=0)
    trainer.callbacks.append(evaluation(tracker))
    trainer.validate(module)
    assert module.memory.tolist() == [0.0, 0.0]
    assert module.memory.is_inference()


def test_tuple_that_validation_step_keeps_is_as_before(fit: Any) -> None:
    module = KeepsTuple(batches=1)
    trainer = fit(TinyValidatedQ(batches=1), max_epochs=0)
    trainer.callbacks.append(evaluation(MemoryTracker()))
    trainer.validate(module)
    tensors = (module.hidden.hidden, *module.hidden.cells[0], module.largest[0].values)
    assert all(tensor.tolist() == [0.0, 0.0] and tensor.is_inference() for tensor in tensors)
