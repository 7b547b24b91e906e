"""Norms of the gradients with which optimizers step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch

from rlwandb_callbacks.callbacks.loss_scale import divided
from rlwandb_callbacks.callbacks.session import Session
from rlwandb_callbacks.callbacks.trained_parameters import l2_norms, parameters_of


class GradientNorms:
    """Norms of the accumulated gradients of each optimizer at its latest step, before clipping.

    Args:
        session: Session whose gradients and loss scale are read; errors are reported to it.

    Attributes:
        follows_backward: Whether the user's code may change gradients before the step, so that they are copied after
            each backward pass.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._norms: dict[int, torch.Tensor] = {}  # by optimizer
        self.follows_backward = False

    def clear(self) -> None:
        """Forgets all norms."""
        self._norms = {}

    def start_batch(self, optimizers: Iterable[Any]) -> None:
        """Follows the backward passes of a batch whose norm is needed."""
        if self.follows_backward:
            with self._session.errors.guard("The gradient norm"):
                self._session.backward.start(self, optimizers)

    def before_step(self, optimizer: Any) -> None:
        """Reads the gradients of an optimizer that is about to step, in a batch whose norm is needed."""
        with self._session.errors.guard("The gradient norm"):
            if self.follows_backward:
                self._session.backward.keep(optimizer)
                return
            scale = self._session.loss_scale.scale_before_step(optimizer)
            self._keep(optimizer, gradient_norm(parameters_of(optimizer)), scale)

    def drop_skipped(self, optimizers: Sequence[Any]) -> None:
        """Drops the norms of gradients that overflowed, with which a ``GradScaler`` did not step."""
        if not self._norms:
            return
        with self._session.errors.guard("The gradient norm"):
            for optimizer in optimizers:
                if id(optimizer) in self._norms and self._session.loss_scale.skipped(optimizer):
                    del self._norms[id(optimizer)]

    def end_batch(self, optimizers: Iterable[Any]) -> None:
        """Computes the norms of the optimizers that stepped in a batch whose backward passes were followed."""
        if not self.follows_backward:
            return
        with self._session.errors.guard("The gradient norm"):
            for optimizer in optimizers:
                self._keep(optimizer, norm_of(self._session.backward.kept(optimizer).values()))
            self._session.backward.stop(self)

    def _keep(self, optimizer: Any, norm: torch.Tensor | None, scale: torch.Tensor | None = None) -> None:
        if norm is not None:
            self._norms[id(optimizer)] = divided(norm, scale)

    def take(self) -> torch.Tensor | None:
        """Returns the norm of all optimizers together since the previous call; None if none has stepped."""
        norms, self._norms = self._norms, {}
        return total_norm(norms.values()) if norms else None


def gradient_norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """Returns the L2 norm of all gradients of parameters together, like :func:`norm_of`."""
    return norm_of([parameter.grad for parameter in parameters if parameter.grad is not None])


def norm_of(gradients: Collection[torch.Tensor]) -> torch.Tensor | None:
    """Returns the L2 norm of all tensors together, on the device of the first; None if there are none."""
    dense = [each.coalesce().values() if each.is_sparse else each for each in (grad.detach() for grad in gradients)]
    return total_norm(l2_norms(dense)) if dense else None


def total_norm(norms: Iterable[torch.Tensor]) -> torch.Tensor:
    """Combines the L2 norms of several tensors to that of all of them, on the device of the first."""
    parts = [norm.float() for norm in norms]
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack([part.to(parts[0].device) for part in parts]))
    return total
