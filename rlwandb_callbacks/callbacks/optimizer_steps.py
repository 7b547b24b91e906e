"""Steps of optimizers, seen where they happen: whether one stepped in a batch, and with which learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

HOOKED_STEP = Optimizer.profile_hook_step(Optimizer.zero_grad).__code__  # of each step method that calls hooks


class OptimizerSteps:
    """Follows the steps of optimizers by hooks on the optimizers themselves.

    A hook runs right after its optimizer has stepped: after all code that may set the learning rate, before any
    scheduler changes it, and also if the user's code steps the optimizer without Lightning. A ``GradScaler`` that skips
    a step calls no hook, unless the optimizer is fused. Rates that are tensors are copied only when they change, and
    nothing waits for their device.

    Attributes:
        sees_all: Whether each optimizer has a hook. Optimizers that are not torch's, and those whose ``step`` was
            replaced, have none.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.sees_all = False
        self._stepped = False  # in this batch
        self._optimizers: list[Any] | None = None
        self._handles: dict[int, Any] = {}  # by optimizer
        self._rates: dict[int, list[Any]] = {}  # by optimizer
        # Rate, its version and its copy, by optimizer and group: rates may be other tensors at each step.
        self._copies: dict[tuple[int, int], tuple[torch.Tensor, int, torch.Tensor]] = {}

    def follow(self, optimizers: Sequence[Any]) -> None:
        """Starts to follow the optimizers of a Trainer; does nothing if it follows them already."""
        if self.follows(optimizers):
            return
        self.close()
        self._optimizers = list(optimizers)
        trained = [inner_optimizer(optimizer) for optimizer in optimizers if optimizer.param_groups]
        hook_steps(trained, self._after_step, self._handles)
        self.sees_all = bool(trained) and all(id(optimizer) in self._handles for optimizer in trained)

    def follows(self, optimizers: Sequence[Any]) -> bool:
        """Returns whether it follows these optimizers, rather than some that a callback has replaced since."""
        return optimizers == self._optimizers

    def close(self) -> None:
        """Removes all hooks, and forgets all steps."""
        for handle in self._handles.values():
            handle.remove()
        self._forget()

    def take_batch(self) -> bool:
        """Returns whether an optimizer has stepped since the previous call."""
        stepped, self._stepped = self._stepped, False
        return stepped

    def before_step(self, optimizer: Any) -> None:
        """Keeps the learning rates of an optimizer without a hook when Lightning is about to step it."""
        if id(optimizer) not in self._handles:
            self._keep_rates(optimizer)

    def _after_step(self, optimizer: Any, _args: Any, _keywords: Any) -> None:
        self._stepped = True
        self._keep_rates(optimizer)

    def _keep_rates(self, optimizer: Any) -> None:
        groups = enumerate(optimizer.param_groups)
        self._rates[id(optimizer)] = [self._copy((id(optimizer), index), group.get("lr")) for index, group in groups]

    def _copy(self, group: tuple[int, int], rate: Any) -> Any:
        """Returns a rate that schedulers do not change in place."""
        if not isinstance(rate, torch.Tensor):
            return rate
        if torch.compiler.is_compiling() or rate.is_inference():  # no version, or one that would cause recompilations
            return rate.detach().clone()
        original, version, copied = self._copies.get(group, (None, None, None))
        if original is not rate or version != rate._version:  # noqa: SLF001  # counts changes in place
            copied = rate.detach().clone()
            self._copies[group] = (rate, rate._version, copied)  # noqa: SLF001  # see above
        return copied

    def rates(self, optimizer: Any) -> list[Any]:
        """Returns the learning rate of each parameter group at the latest step, as a number or a tensor.

        Groups that have not stepped yet have the present rate.
        """
        present = [group.get("lr") for group in optimizer.param_groups]
        used = self._rates.get(id(inner_optimizer(optimizer)), [])[: len(present)]
        return used + present[len(used) :]


def hook_steps(optimizers: Iterable[Any], hook: Callable[[Any, Any, Any], None], handles: dict[int, Any]) -> None:
    """Calls a hook after each step of the optimizers that call hooks; ``handles`` gets the new ones by optimizer."""
    for optimizer in optimizers:
        if id(optimizer) not in handles and calls_hooks(optimizer):
            handles[id(optimizer)] = optimizer.register_step_post_hook(hook)


def inner_optimizer(optimizer: Any) -> Any:
    """Returns the optimizer in the wrapper that ``self.optimizers()`` returns, and any other as it is."""
    return vars(optimizer).get("_optimizer", optimizer)


def calls_hooks(optimizer: Any) -> bool:
    """Returns whether the ``step`` of an optimizer calls the hooks that are registered on it."""
    own_step = vars(optimizer).get("step")
    is_replaced = own_step is not None and not getattr(own_step, "_wrapped_by_lr_sched", False)
    has_hooks = isinstance(getattr(optimizer, "_optimizer_step_post_hooks", None), dict)
    return has_hooks and not is_replaced and getattr(type(optimizer).step, "__code__", None) is HOOKED_STEP
