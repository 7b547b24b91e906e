"""Gradients as backward passes left them, however they are changed before the optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.loss_scale import LossScale, found_inf
from rlwandb_callbacks.callbacks.optimizer_steps import hook_steps
from rlwandb_callbacks.callbacks.trained_parameters import parameters_of
from rlwandb_callbacks.core.class_names import LIGHTNING_PACKAGES, is_overridden

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

MODULE_HOOKS = ("backward", "on_after_backward", "optimizer_step")
CALLBACK_HOOKS = ("on_after_backward", "on_before_optimizer_step")
PACKAGES = LIGHTNING_PACKAGES | {__name__.partition(".")[0]}  # whose hooks leave gradients as they are


def gradients_may_change(trainer: Trainer, module: LightningModule) -> bool:
    """Returns whether code of the user runs between backward and our ``on_before_optimizer_step``.

    Such code may clip the gradients. It is that of ``training_step`` under manual optimization, else an overridden hook
    of the module or of another callback.
    """
    if not module.automatic_optimization:
        return True
    if any(is_overridden(module, hook, packages=PACKAGES) for hook in MODULE_HOOKS):
        return True
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by the callback connector
    return any(is_overridden(callback, hook, packages=PACKAGES) for callback in callbacks for hook in CALLBACK_HOOKS)


@dataclass
class _Left:
    """Gradient of a parameter after a backward pass."""

    gradient: torch.Tensor  # the tensor itself, which may change
    version: int  # of that tensor after the backward pass
    copied: torch.Tensor
    was_replaced: bool  # this pass found another tensor than the pass before it, since the optimizer stepped
    kept: torch.Tensor | None = None  # what counted at the step of the optimizer
    has_loss_scale: bool = True  # of the loss, in ``kept``


class BackwardGradients:
    """Copies gradients at the end of each backward pass, while a reader asks for them.

    Hooks on the parameters exist between :meth:`start` and :meth:`stop` only. What counts at a step of an optimizer is
    the gradient of each parameter after the latest backward pass that reached it, accumulated as backward accumulates,
    and divided by the scale of the loss. A gradient that was reset since is zero or missing. One that the user
    assigned, without a backward pass or after several with resets between them, is taken as it is.

    Args:
        errors: Errors in hooks are reported to it, as they must not reach the user's backward pass.
        loss_scale: Scale of the losses, by which gradients are divided, and steps that are skipped.
    """

    def __init__(self, errors: ErrorPolicy, loss_scale: LossScale) -> None:
        self._errors, self._loss_scale = errors, loss_scale
        self._readers: set[int] = set()
        self._clear()

    def _clear(self) -> None:
        self._handles: dict[int, Any] = {}  # by parameter or optimizer
        self._touched: dict[int, torch.Tensor] = {}  # parameters of the backward pass that runs now
        self._queued: set[int] = set()  # backward passes that will call _copy, but for those that raised an error
        self._left: dict[int, _Left] = {}
        self._kept: dict[int, dict[int, torch.Tensor]] = {}

    def start(self, reader: object, optimizers: Iterable[Any]) -> None:
        """Begins to copy the gradients of all parameters of some optimizers."""
        self._readers.add(id(reader))
        for optimizer in optimizers:
            for parameter in parameters_of(optimizer):
                if id(parameter) not in self._handles:
                    self._handles[id(parameter)] = _after_accumulation(parameter, self._mark)
            hook_steps([optimizer], self._after_step, self._handles)

    def _mark(self, parameter: torch.Tensor) -> None:
        backward_pass = torch._C._current_graph_task_id()  # noqa: SLF001  # a pass that raises drops its callbacks
        if backward_pass not in self._queued:
            self._queued.add(backward_pass)
            queue = torch.autograd.Variable._execution_engine.queue_callback  # noqa: SLF001  # torch's only call at the end of a pass
            queue(lambda: queue(self._copy))  # queued last: DDP averages gradients in a callback of this queue too
        self._touched[id(parameter)] = parameter

    def _copy(self) -> None:
        touched, self._touched = self._touched, {}
        with self._errors.guard("Reading gradients"), torch.no_grad():
            for key, parameter in touched.items():
                gradient = parameter.grad
                if gradient is None:
                    continue
                before = self._left.get(key)
                continues = before is not None and before.kept is None
                was_replaced = continues and (before.was_replaced or before.gradient is not gradient)  # type: ignore[union-attr]  # not None if it continues
                self._left[key] = _Left(gradient, gradient._version, gradient.detach().clone(), was_replaced)  # noqa: SLF001  # counts changes in place

    def _after_step(self, optimizer: Any, _args: Any, _keywords: Any) -> None:
        with self._errors.guard("Reading gradients"):
            overflow = found_inf(optimizer)
            if overflow is None or not overflow:  # waits for the device, in a batch whose row is due
                self._keep(optimizer)

    def keep(self, optimizer: Any) -> None:
        """Keeps the gradients with which an optimizer steps now, in place of those of an earlier step in the batch.

        They count once the optimizer has stepped, which a ``GradScaler`` may prevent; at once if it has no hooks.
        """
        if id(optimizer) in self._handles:
            self._gradients(optimizer, self._left)
        else:
            self._keep(optimizer)

    def _keep(self, optimizer: Any) -> None:
        kept = self._gradients(optimizer, self._left)
        if kept:
            self._kept[id(optimizer)] = kept

    def present(self, optimizer: Any) -> dict[int, torch.Tensor]:
        """Returns the gradients with which an optimizer would step now, by the ``id`` of their parameters."""
        scale = self._loss_scale.scale_in_backward(optimizer)
        return self._gradients(optimizer, {key: replace(left) for key, left in self._left.items()}, scale)

    def _gradients(
        self, optimizer: Any, left: Mapping[int, _Left], scale_without_step: torch.Tensor | None = None
    ) -> dict[int, torch.Tensor]:
        scale = self._loss_scale.scale_at_step(optimizer)
        scale = scale_without_step if scale is None else scale
        with torch.no_grad():
            return {
                id(parameter): _gradient(parameter.grad, left.get(id(parameter)), scale)
                for parameter in parameters_of(optimizer)
                if parameter.grad is not None
            }

    def kept(self, optimizer: Any) -> dict[int, torch.Tensor]:
        """Returns the gradients of the latest step of an optimizer by the ``id`` of their parameters, if it stepped."""
        return self._kept.get(id(optimizer), {})

    def stop(self, reader: object) -> None:
        """Removes all hooks and copies once no reader is left."""
        self._readers.discard(id(reader))
        if not self._readers:
            self.close()

    def close(self) -> None:
        """Removes all hooks and copies."""
        self._readers.clear()
        for handle in self._handles.values():
            handle.remove()
        self._clear()


def _gradient(gradient: torch.Tensor, left: _Left | None, scale: torch.Tensor | None) -> torch.Tensor:
    """Returns what counts of a gradient at a step, and notes it in ``left``."""
    is_same = left is not None and left.gradient is gradient
    if left is None or (left.was_replaced and not is_same):
        return gradient.detach().clone()
    if left.kept is None or (scale is not None and left.has_loss_scale):
        left.has_loss_scale = scale is None
        left.kept = left.copied if scale is None else left.copied / scale.to(gradient.device)
        if is_same and gradient._version != left.version and not gradient.is_sparse:  # noqa: SLF001  # see _copy
            left.kept = torch.where(gradient.any(), left.kept, torch.zeros_like(left.kept))  # reset in place?
    return left.kept


def _after_accumulation(parameter: torch.Tensor, hook: Callable[[torch.Tensor], None]) -> Any:
    """Registers a hook, also on a parameter that is frozen now and may need gradients later in the batch."""
    is_frozen = not parameter.requires_grad
    if is_frozen:
        parameter.requires_grad_(True)
    try:
        return parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]  # torch's own
    finally:
        if is_frozen:
            parameter.requires_grad_(False)
