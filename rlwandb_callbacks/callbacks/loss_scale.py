"""Loss scaling by ``torch.amp.GradScaler``: gradients that carry the scale, and steps that are skipped.

A ``GradScaler`` multiplies the loss, and skips the step of an optimizer whose gradients overflow. It calls
``optimizer.step()`` only where it does not skip, except for optimizers with ``_step_supports_amp_scaling``, such as
``Adam(fused=True)``: they get the scale and the overflow as attributes, and unscale or skip in their kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.amp.grad_scaler import GradScaler, OptState

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.grad_scalers import find_scalers, precision_scaler
from rlwandb_callbacks.callbacks.optimizer_steps import hook_steps, inner_optimizer
from rlwandb_callbacks.callbacks.skipped_steps import BatchSteps, Overflow, SkippedSteps

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class LossScale:
    """Follows the enabled ``GradScaler`` objects of a training; costs nothing where there are none.

    Steps are noted by hooks of the optimizers, and those that a scaler was told to do by the records that it keeps
    until its next ``update()``, so that no device is waited for.

    Args:
        errors: Errors in hooks are reported to it, as they must not reach the user's step.

    Attributes:
        skipped_steps: Counts the steps that were skipped.
    """

    def __init__(self, errors: ErrorPolicy) -> None:
        self._errors = errors
        self._clear()

    def _clear(self) -> None:
        self.skipped_steps = SkippedSteps()
        self._batches = 0
        self._searched_before: int | None = None  # this batch
        self._followed: Sequence[Any] = ()
        self._scalers: dict[str, GradScaler] = {}
        self._precision_scaler: GradScaler | None = None
        self._optimizers: dict[int, int] = {}  # id of the optimizer by that of itself and of Lightning's wrapper
        self._handles: dict[int, Any] = {}
        self._records: list[tuple[GradScaler, dict[int, dict[str, Any]]]] = []  # of steps, by optimizer
        self._counted: list[dict[str, Any]] = []  # records of a step that belong to an earlier batch
        self._steps: dict[int, list[Overflow]] = {}  # of the present batch
        self._latest: BatchSteps | None = None
        self._scaler_by_optimizer: dict[int, GradScaler] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out scalers, optimizers and their hooks."""
        return {"_errors": self._errors}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores an object that follows nothing yet."""
        self._errors = state["_errors"]
        self._clear()

    def start_batch(self, trainer: Trainer, module: LightningModule) -> None:
        """Finds the scalers before the first batch, and those that were made in it before the second."""
        if self._batches < 2 and self._searched_before != self._batches:
            self._searched_before = self._batches
            with self._errors.guard("Looking for a GradScaler"):
                self._precision_scaler = precision_scaler(trainer)
                self._scalers = find_scalers(trainer, module)
                self.follow()
        if self._scalers and trainer.optimizers is not self._followed:
            self._follow_optimizers(trainer)

    def _follow_optimizers(self, trainer: Trainer) -> None:
        self._followed = trainer.optimizers
        wrappers: Iterable[Any] = getattr(trainer.strategy, "_lightning_optimizers", ())
        for each in (*wrappers, *trainer.optimizers):
            optimizer = inner_optimizer(each)
            self._optimizers |= {id(each): id(optimizer), id(optimizer): id(optimizer)}
            hook_steps([optimizer], self._note_step, self._handles)

    def _note_step(self, optimizer: Any, _args: Any, _keywords: Any) -> None:
        with self._errors.guard("Following skipped steps"):
            overflow = found_inf(optimizer)
            self._steps.setdefault(id(optimizer), []).append(Overflow(overflow))
            if overflow is None and getattr(optimizer, "_step_supports_amp_scaling", False):
                self._check_wrapper(optimizer)

    def _check_wrapper(self, optimizer: Any) -> None:
        """Warns if a scaler steps a fused optimizer through Lightning's wrapper, which keeps what the scaler sets."""
        for _, key in self._records_of(optimizer):
            if key != id(optimizer):
                self._errors.warn_once(
                    f"GradScaler.step was called with the {type(optimizer).__name__} that self.optimizers() returns. "
                    "Lightning's wrapper does not pass the scale on to a fused optimizer, which therefore neither "
                    "unscales its gradients nor skips infinite ones. Pass self.optimizers(use_pl_optimizer=False) to "
                    "GradScaler.step, or make the optimizer with fused=False.",
                    kind="fused optimizer in a wrapper",
                )

    def follow(self) -> None:
        """Keeps the present records of the scalers; each ``update()`` of a scaler replaces them by empty ones."""
        for scaler in self._scalers.values():
            records = scaler._per_optimizer_states  # noqa: SLF001  # no public access
            if not any(records is each for _, each in self._records):
                self._records.append((scaler, records))

    def is_update(self, *, attempted: bool) -> bool:
        """Ends a batch, and returns whether it counts as an update.

        Args:
            attempted: Whether it counts if no step was skipped.

        Returns:
            ``attempted``, but False where every step of the batch was skipped; see :meth:`SkippedSteps.take_update`.
        """
        self._batches += 1
        if not self._scalers:
            return attempted
        self._latest = BatchSteps(attempted, self._scaled_optimizers(), self._steps)
        self._steps, self._records = {}, []
        self.follow()
        self.skipped_steps.add(self._latest)
        return self.skipped_steps.take_update(attempted=attempted)

    def _scaled_optimizers(self) -> frozenset[int]:
        scaled: set[int] = set()
        counted, self._counted = self._counted, []
        for scaler, records in self._records:
            for key, record in records.items():
                optimizer = self._optimizers.get(key)
                if optimizer not in self._handles or record["stage"] is not OptState.STEPPED:
                    continue
                self._scaler_by_optimizer[optimizer] = scaler
                self._counted.append(record)
                if not any(record is each for each in counted):
                    scaled.add(optimizer)
        return frozenset(scaled)

    def skipped(self, optimizer: Any) -> bool:
        """Returns whether every step of an optimizer in the latest batch was skipped.

        It waits for a GPU if the optimizer is fused: ask only where a row is due.
        """
        batch = self._latest
        return batch is not None and id(optimizer) in batch.scaled and not batch.has_stepped(id(optimizer))

    def scale_before_step(self, optimizer: Any) -> torch.Tensor | None:
        """Returns the scale that gradients carry in ``on_before_optimizer_step`` of automatic optimization, if any.

        Lightning has unscaled them before, except for optimizers that do so in their step.
        """
        scaler = self._precision_scaler
        if scaler is None:
            return None
        record = scaler._per_optimizer_states.get(id(optimizer))  # noqa: SLF001  # no public access
        is_unscaled = record is not None and record["stage"] is not OptState.READY
        return None if is_unscaled else scaler._scale  # noqa: SLF001  # get_scale waits for the device

    def scale_at_step(self, optimizer: Any) -> torch.Tensor | None:
        """Returns the scale of the losses that an optimizer steps on, once a scaler has looked at its gradients."""
        scaler = next((scaler for scaler, _ in self._records_of(optimizer)), None)
        return None if scaler is None else scaler._scale  # noqa: SLF001  # get_scale waits for the device

    def _records_of(self, optimizer: Any) -> Iterator[tuple[GradScaler, int]]:
        """Yields the scalers that have looked at an optimizer's gradients, and the key of their record of it."""
        for scaler in self._scalers.values():
            for key, record in scaler._per_optimizer_states.items():  # noqa: SLF001  # no public access
                if self._optimizers.get(key) == id(optimizer) and record["found_inf_per_device"]:
                    yield scaler, key

    def scale_in_backward(self, optimizer: Any) -> torch.Tensor | None:
        """Returns the scale of the gradients that reach the parameters of an optimizer in a backward pass, if any.

        A scaler of the module is known to be that of an optimizer after it has stepped it; before, it is if there is
        no other one.
        """
        scaler = self._precision_scaler or self._scaler_by_optimizer.get(id(optimizer))
        if scaler is None and not self._scaler_by_optimizer and len(self._scalers) == 1:
            scaler = next(iter(self._scalers.values()))
        return None if scaler is None else scaler._scale  # noqa: SLF001  # get_scale waits for the device

    def values(self) -> dict[str, torch.Tensor]:
        """Returns the scale of the next loss: ``amp_scale``, and for several scalers ``amp_scale_<name>`` of each."""
        scales = {name: scaler._scale for name, scaler in self._scalers.items()}  # noqa: SLF001  # get_scale waits for the device
        used = {name: scale for name, scale in scales.items() if scale is not None}
        named = {f"amp_scale_{name}": scale for name, scale in used.items()} if len(used) > 1 else {}
        return dict(zip(("amp_scale",), used.values(), strict=False)) | named

    def close(self) -> None:
        """Removes all hooks, and forgets the training."""
        for handle in self._handles.values():
            handle.remove()
        self._clear()


def divided(values: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Divides values, of any device and type, by a scale of one element; None leaves them as they are."""
    return values if scale is None else values / scale.to(values.device, non_blocking=True)


def found_inf(optimizer: Any) -> torch.Tensor | None:
    """Returns the overflow that a scaler hands to a fused optimizer during its step; None for other optimizers."""
    overflow: torch.Tensor | None = getattr(optimizer, "found_inf", None)
    return overflow
