"""Counters that serve as the axes of every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlwandb_callbacks.callbacks.metric_names import ENV_STEP_NAMES

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class Counters:
    """Updates, Lightning's step, and the environment steps that the module reports.

    Attributes:
        updates: Batches after which an optimizer has stepped. A batch that only accumulates gradients does not count,
            and one that steps several optimizers counts once. Under manual optimization every batch counts.
    """

    def __init__(self) -> None:
        self.updates = 0
        self._latest_batch = -1
        self._optimizer_steps = 0
        self._batch_step: int | None = None
        self._module_step: float | None = None
        self._env_steps: float | None = None
        self._env_steps_output: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out a live tensor."""
        return {**vars(self), "_env_steps_output": None}

    def state(self) -> dict[str, float]:
        """Returns what a resumed training needs, as plain numbers."""
        return {"updates": self.updates, **({} if self._env_steps is None else {"env_steps": self._env_steps})}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state` returned."""
        self.updates = int(state.get("updates", 0))
        self._env_steps = state.get("env_steps")

    def start(self, trainer: Trainer) -> None:
        """Starts a training; takes Lightning's count if the checkpoint that it resumes has no counters of ours."""
        self._optimizer_steps = trainer.global_step
        self._latest_batch = trainer.fit_loop.epoch_loop.total_batch_idx
        self.updates = self.updates or batches_that_stepped(trainer)

    def advance(self, trainer: Trainer, module: LightningModule, outputs: Any) -> None:
        """Counts a training batch; further calls in the same batch, by other callbacks, change nothing."""
        epoch_loop = trainer.fit_loop.epoch_loop
        batch = epoch_loop.total_batch_idx
        if batch == self._latest_batch:
            return
        self._latest_batch = batch
        self._batch_step = batches_that_stepped(trainer)
        if module.automatic_optimization:
            optimizer_steps = epoch_loop.global_step
            self.updates += optimizer_steps != self._optimizer_steps
            self._optimizer_steps = optimizer_steps
        else:
            self.updates += 1
        if outputs:
            for name in ENV_STEP_NAMES:
                if name in outputs:
                    self._env_steps_output = outputs[name]

    def axes(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Returns the counters at the latest batch.

        ``trainer/global_step`` is the number that WandbLogger writes for that batch: ``step`` if the module logs a
        metric of that name. ``time/env_steps`` comes from the outputs of ``training_step``, the logged metrics or an
        attribute of the module, if one of them has it.
        """
        logged_step = as_number(logged_on_step(trainer).get("step"))
        self._module_step = self._module_step if logged_step is None else logged_step
        step = self._batch_step if self._module_step is None else self._module_step
        sources = [self._env_steps_output]
        sources += [trainer.callback_metrics.get(name) for name in ENV_STEP_NAMES]
        sources += [getattr(module, name, None) for name in ENV_STEP_NAMES]
        numbers = (as_number(source) for source in sources)
        self._env_steps = next((number for number in numbers if number is not None), self._env_steps)
        return {
            "trainer/global_step": int(batches_that_stepped(trainer) if step is None else step),
            "time/updates": self.updates,
            **({} if self._env_steps is None else {"time/env_steps": self._env_steps}),
        }


def logged_on_step(trainer: Trainer) -> Mapping[str, Any]:
    """Returns the metrics that the module logged for this batch, as Lightning will pass them to its loggers.

    The Trainer's ``logged_metrics`` and ``callback_metrics`` also hold metrics of epochs and of earlier batches.
    """
    results = getattr(trainer.fit_loop.epoch_loop, "_results", None)
    return {} if results is None else results.metrics(on_step=True)["log"]


def batches_that_stepped(trainer: Trainer) -> int:
    """Returns the step that Lightning passes to its loggers: batches that stepped, with any number of optimizers."""
    count = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    return trainer.global_step if count is None else int(count)


def log_every_n_steps(trainer: Any) -> int:
    """Returns the Trainer's logging interval, or Lightning's default if the Trainer has no loggers and says 0."""
    return int(trainer.log_every_n_steps) or 50


def as_number(value: Any) -> float | None:
    """Converts a number, or an array or tensor of one element; returns None for any other value."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.item() if np.prod(value.shape) == 1 else None
    return value if isinstance(value, int | float) else None
