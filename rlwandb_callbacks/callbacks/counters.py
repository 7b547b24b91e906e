"""Counters that serve as the axes of every row."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlwandb_callbacks.callbacks.env_steps import EnvSteps, as_number
from rlwandb_callbacks.callbacks.lightning_results import logged_on_step
from rlwandb_callbacks.callbacks.loss_scale import LossScale
from rlwandb_callbacks.callbacks.optimizer_steps import OptimizerSteps

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class Reached(NamedTuple):
    """Counts at a batch of training.

    Args:
        trainer: Trainer that trained it.
        steps: Lightning's count of batches that stepped, which may leave out this batch.
        updates: Our count, which leaves out batches whose steps changed nothing.
    """

    trainer: weakref.ref[Trainer]
    steps: int
    updates: int


class Counters:
    """Updates, Lightning's step, and the environment steps that the module reports.

    Args:
        loss_scale: Knows the steps that a ``GradScaler`` skips.
        reached: The last batch of the fit before; its updates count on if the same Trainer trains further.

    Attributes:
        updates: Batches in which an optimizer of ``configure_optimizers`` has stepped. A batch that steps several
            optimizers counts once. Batches that only accumulate gradients, in which a ``GradScaler`` skipped all steps,
            or, under automatic optimization, for which ``training_step`` returned None do not count. If steps cannot be
            seen, because there are no optimizers or they are not torch's, the batches count after which Lightning
            reports a step; under manual optimization all do.
        batches: Batches since the start of this training.
        steps: Steps of the optimizers.
        reached: The latest batch that was trained; None before the first one.
        is_training: Whether the latest batch trained; see :func:`skips_backward`.
    """

    def __init__(self, loss_scale: LossScale | None = None, reached: Reached | None = None) -> None:
        self.updates = self.batches = 0
        self.steps = OptimizerSteps()
        self.is_training = True
        self.reached = reached
        self._loss_scale = loss_scale
        self._env_steps = EnvSteps()
        self._latest_batch = -1
        self._optimizer_steps = 0
        self._has_loss = False  # since the latest step
        self._batch_step: float | None = None
        self._module_step: float | None = None
        self._saved_step: float | None = None
        self._checkpoint_axes: dict[str, float] | None = None  # of a checkpoint that is evaluated, not trained
        self._trainer: weakref.ref[Trainer] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the references to the Trainer and to optimizers, which cannot be pickled."""
        return {**vars(self), "_trainer": None, "reached": None, "steps": OptimizerSteps()}

    def state(self) -> dict[str, float]:
        """Returns what a resumed training needs, as plain numbers, at the latest batch."""
        trainer = None if self._trainer is None else self._trainer()
        if trainer is not None:
            self._read(trainer, trainer.lightning_module)
            self._saved_step = self._step
        named = {"updates": self.updates, "global_step": self._saved_step, **self._env_steps.state()}
        return {name: count for name, count in named.items() if count is not None}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state` returned."""
        self.updates = int(state.get("updates", 0))
        self._saved_step = self._batch_step = state.get("global_step")
        self._module_step = None
        self._env_steps.restore(state.get("env_steps"), state.get("env_steps_elsewhere", 0))

    def resume(self, trainer: Trainer, module: LightningModule) -> None:
        """Compares the environment steps of a checkpoint with those of the module, before it makes further ones."""
        self._env_steps.resume(trainer, module)

    def start(self, trainer: Trainer) -> None:
        """Starts a training; takes Lightning's count if the checkpoint that it resumes has no counters of ours."""
        self._trainer = weakref.ref(trainer)
        self._optimizer_steps = trainer.global_step
        self.steps.follow(trainer.optimizers)
        self._latest_batch = trainer.fit_loop.epoch_loop.total_batch_idx
        self.updates = self.updates or self._updates_before(trainer)

    def _updates_before(self, trainer: Trainer) -> int:
        steps = batches_that_stepped(trainer)
        if self.reached is not None and self.reached.trainer() is trainer and steps - self.reached.steps in (0, 1):
            return self.reached.updates
        return steps

    def evaluate_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Takes the counters of a checkpoint whose weights are evaluated until the next training."""
        axes = {"trainer/global_step": "global_step", "time/updates": "updates", "time/env_steps": "env_steps"}
        self._checkpoint_axes = {axis: state[name] for axis, name in axes.items() if name in state}
        if "env_steps" in state:
            self._checkpoint_axes["time/env_steps"] += state.get("env_steps_elsewhere", 0)

    def advance(self, trainer: Trainer, module: LightningModule, outputs: Any) -> None:
        """Counts a training batch; further calls in the same batch, by other callbacks, change nothing."""
        epoch_loop = trainer.fit_loop.epoch_loop
        batch = epoch_loop.total_batch_idx
        if batch == self._latest_batch:
            return
        self._latest_batch = batch
        self.batches += 1
        steps = self._batch_step = batches_that_stepped(trainer)
        attempted = self._attempts_update(trainer, module, outputs)
        self.updates += attempted if self._loss_scale is None else self._loss_scale.is_update(attempted=attempted)
        if self._trainer is not None:
            self.reached = Reached(self._trainer, steps, self.updates)
        if outputs:
            self._env_steps.keep(outputs)
        self._env_steps.follow(trainer)
        self._env_steps.resume(trainer, module)

    def _attempts_update(self, trainer: Trainer, module: LightningModule, outputs: Any) -> bool:
        """Ends a batch, and returns whether it counts unless a ``GradScaler`` skipped its steps."""
        self.is_training = not skips_backward(trainer)
        stepped = self.steps.take_batch()
        sees_all = self.steps.sees_all and self.steps.follows(trainer.optimizers)
        self.steps.follow(trainer.optimizers)
        if not module.automatic_optimization:
            return stepped or not sees_all
        optimizer_steps = trainer.fit_loop.epoch_loop.global_step
        ends_accumulation = optimizer_steps != self._optimizer_steps
        self._optimizer_steps = optimizer_steps
        has_loss = self._has_loss or bool(outputs)
        self._has_loss = has_loss and not ends_accumulation
        return self.is_training and has_loss and (stepped if sees_all else ends_accumulation)

    def sum_env_steps(
        self, trainer: Trainer, module: LightningModule, gather: Callable[[float], Sequence[float]]
    ) -> None:
        """Adds the steps of other ranks; ``gather`` returns the values of all ranks for that of this one."""
        with contextlib.ExitStack() as after:  # the other ranks wait, whatever fails on this one
            after.callback(self._env_steps.sum_over_ranks, gather)
            self._env_steps.read(trainer, module)

    def close(self) -> None:
        """Stops following the optimizers and what the module logs."""
        self.steps.close()
        self._env_steps.close()

    def axes(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Returns the counters at the latest batch.

        ``trainer/global_step`` is the number that WandbLogger writes for that batch: ``step`` if the module logs a
        metric of that name. ``time/env_steps`` comes from the outputs of ``training_step``, the logged metrics or an
        attribute of the module, if one of them has it.
        """
        if self._checkpoint_axes is not None:
            return dict(self._checkpoint_axes)
        self._read(trainer, module)
        step, env_steps = self._step, self._env_steps.total
        return {
            "trainer/global_step": int(batches_that_stepped(trainer) if step is None else step),
            "time/updates": self.updates,
            **({} if env_steps is None else {"time/env_steps": env_steps}),
        }

    def _read(self, trainer: Trainer, module: LightningModule) -> None:
        logged_step = as_number(logged_on_step(trainer).get("step"))
        self._module_step = self._module_step if logged_step is None else logged_step
        self._env_steps.read(trainer, module)

    @property
    def _step(self) -> float | None:
        return self._batch_step if self._module_step is None else self._module_step


def batches_that_stepped(trainer: Trainer) -> int:
    """Returns the step that Lightning passes to its loggers: batches that stepped, with any number of optimizers."""
    count = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    return trainer.global_step if count is None else int(count)


def skips_backward(trainer: Trainer) -> bool:
    """Returns whether the batches of this epoch run ``training_step`` without a backward pass.

    ``StochasticWeightAveraging`` adds such an epoch to estimate the statistics of batch norms.
    """
    return bool(getattr(trainer.fit_loop, "_skip_backward", False))


def log_every_n_steps(trainer: Any) -> int:
    """Returns the Trainer's logging interval, or Lightning's default if the Trainer has no loggers and says 0."""
    return int(trainer.log_every_n_steps) or 50
