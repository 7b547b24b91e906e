"""The counters that serve as axes of every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlwandb_callbacks.callbacks.metric_names import ENV_STEP_NAMES

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class Counters:
    """Counts updates, and knows Lightning's step and the environment steps that the module tells of."""

    def __init__(self) -> None:
        self.updates = 0
        self._batch_step: int | None = None
        self._module_step: float | None = None
        self._env_steps_output: Any = None
        self._env_steps_known: float | None = None
        self._seen_batch = -1
        self._seen_optimizer_steps = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leaves live tensors out."""
        return {**vars(self), "_env_steps_output": None}

    def state(self) -> dict[str, float]:
        """What a resumed training needs, in plain numbers."""
        known = {} if self._env_steps_known is None else {"env_steps": self._env_steps_known}
        return {"updates": self.updates, **known}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from :meth:`state`."""
        self.updates = int(state.get("updates", 0))
        self._env_steps_known = state.get("env_steps")

    def start(self, trainer: Trainer) -> None:
        """Takes over Lightning's own count where training was resumed from a checkpoint that holds none of ours."""
        self._seen_optimizer_steps = trainer.global_step
        self._seen_batch = trainer.fit_loop.epoch_loop.total_batch_idx
        self.updates = self.updates or batches_that_stepped(trainer)

    def advance(self, trainer: Trainer, module: LightningModule, outputs: Any) -> None:
        """Counts a training batch, once, whichever callback comes first.

        An update is a batch after which an optimizer has stepped: a batch that only accumulates gradients is none, and
        one that steps several optimizers is one. Under manual optimization every batch counts.
        """
        epoch_loop = trainer.fit_loop.epoch_loop
        batch = epoch_loop.total_batch_idx
        if batch == self._seen_batch:
            return
        self._seen_batch = batch
        self._batch_step = batches_that_stepped(trainer)
        if module.automatic_optimization:
            optimizer_steps = epoch_loop.global_step
            self.updates += optimizer_steps != self._seen_optimizer_steps
            self._seen_optimizer_steps = optimizer_steps
        else:
            self.updates += 1
        if outputs:
            for name in ENV_STEP_NAMES:
                if name in outputs:
                    self._env_steps_output = outputs[name]

    def axes(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """The counters at the latest batch.

        Returns:
            ``trainer/global_step``: the number that WandbLogger writes for that batch, which is ``step`` where the
            module logs a metric of that name; ``time/updates``; and ``time/env_steps`` where the outputs of
            ``training_step``, the logged metrics or the module tell it.
        """
        logged = trainer.callback_metrics
        told = as_number(logged_on_step(trainer).get("step"))
        self._module_step = self._module_step if told is None else told
        step = self._batch_step if self._module_step is None else self._module_step
        axes = {
            "trainer/global_step": int(batches_that_stepped(trainer) if step is None else step),
            "time/updates": self.updates,
        }
        self._env_steps_known = self._env_steps(logged, module)
        return axes | ({} if self._env_steps_known is None else {"time/env_steps": self._env_steps_known})

    def _env_steps(self, logged: Any, module: LightningModule) -> float | None:
        sources = [self._env_steps_output]
        sources += [logged.get(name) for name in ENV_STEP_NAMES]
        sources += [getattr(module, name, None) for name in ENV_STEP_NAMES]
        numbers = (as_number(source) for source in sources)
        return next((number for number in numbers if number is not None), self._env_steps_known)


def logged_on_step(trainer: Trainer) -> Mapping[str, Any]:
    """What the module logged for this very batch, as Lightning is about to give it to its loggers.

    The Trainer's own ``logged_metrics`` and ``callback_metrics`` also hold what was logged for epochs, and long ago.
    """
    results = getattr(trainer.fit_loop.epoch_loop, "_results", None)
    return {} if results is None else results.metrics(on_step=True)["log"]


def batches_that_stepped(trainer: Trainer) -> int:
    """The count that Lightning gives its loggers as step: batches that stepped, whatever the number of optimizers."""
    count = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    return trainer.global_step if count is None else int(count)


def log_every_n_steps(trainer: Any) -> int:
    """The Trainer's own logging interval, which is 0 where its loggers are switched off: then Lightning's default."""
    return int(trainer.log_every_n_steps) or 50


def as_number(value: Any) -> float | None:
    """Reads a number, an array or tensor of one element; None for anything else."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.item() if getattr(value, "size", None) == 1 or getattr(value, "numel", int)() == 1 else None
    return value if isinstance(value, int | float) else None
