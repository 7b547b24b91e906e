"""Parameters and networks that the optimizers train, and norms of their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rlwandb_callbacks.callbacks.unregistered_tensors import unregistered_networks, unregistered_tensors


def trained_parameters(
    optimizers: Sequence[Any], module: nn.Module, *, of: Iterable[Any] | None = None
) -> dict[str, torch.Tensor]:
    """Returns the tensors of optimizers that need gradients, by dotted name.

    Names are those of the module's parameters; tensors that are none follow, see
    :func:`rlwandb_callbacks.callbacks.unregistered_tensors.unregistered_tensors`. The ``_orig_mod.`` that
    ``torch.compile`` adds to names is removed, so that compiled and other runs share charts.

    Args:
        optimizers: All optimizers of the training.
        module: The module that they train.
        of: Those of the optimizers whose tensors are returned; by default all.
    """
    ids = {id(tensor) for optimizer in (optimizers if of is None else of) for tensor in parameters_of(optimizer)}
    named = named_tensors(optimizers, module).items()
    return {name: tensor for name, tensor in named if id(tensor) in ids and tensor.requires_grad}


def named_tensors(optimizers: Sequence[Any], module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns all parameters of a module, and the tensors of optimizers that are none, by dotted name."""
    named = {name.replace("_orig_mod.", ""): parameter for name, parameter in module.named_parameters()}
    return named | {tensor.name: tensor.value for tensor in unregistered_tensors(optimizers, module)}


def parameters_of(optimizer: Any) -> Iterable[torch.Tensor]:
    """Yields the parameters of all groups of an optimizer."""
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def names_by_id(optimizers: Sequence[Any], module: nn.Module) -> dict[int, str]:
    """Returns the names that :func:`trained_parameters` gives, by the ``id`` of the tensor."""
    return {id(tensor): name for name, tensor in named_tensors(optimizers, module).items()}


def trained_networks(trained: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, nn.Module]:
    """Returns the networks that own trained tensors, by name.

    These are direct children of a module, and outermost networks that it holds elsewhere, as in a plain list.
    """
    owners = {name.split(".")[0] for name in trained}
    children = {name: child for name, child in module.named_children() if name in owners}
    registered = {id(parameter) for parameter in module.parameters()}
    others = [tensor for tensor in trained.values() if id(tensor) not in registered]
    return {**children, **unregistered_networks(others, module)}


def tensors_without_network(
    optimizers: Sequence[Any], module: nn.Module, networks: Iterable[nn.Module]
) -> dict[str, list[torch.Tensor]]:
    """Returns trained tensors that are no parameters of the module or its networks, by the name of what holds them."""
    owned = {id(parameter) for network in networks for parameter in network.parameters()}
    groups: dict[str, list[torch.Tensor]] = {}
    for _, owner, tensor in unregistered_tensors(optimizers, module):
        if owner and id(tensor) not in owned and tensor.requires_grad:
            groups.setdefault(owner, []).append(tensor)
    return groups


def l2_norms(tensors: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Returns the L2 norm of each tensor on its device; those of half precision are summed in ``float32``."""
    if not tensors:
        return ()
    halves = {tensor.dtype for tensor in tensors} & {torch.float16, torch.bfloat16}
    if not halves:
        return torch._foreach_norm(tensors)  # noqa: SLF001  # torch's only function for many norms
    return [
        torch.linalg.vector_norm(tensor, dtype=torch.float32 if tensor.dtype in halves else None) for tensor in tensors
    ]
