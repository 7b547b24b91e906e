"""Parameters and networks that the optimizers train, and norms of their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn


def trained_parameters(optimizers: Iterable[Any], module: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters of a module that need gradients and belong to one of the optimizers, by dotted name.

    The ``_orig_mod.`` that ``torch.compile`` adds to names is removed, so that compiled and other runs share charts.
    """
    ids = {id(parameter) for optimizer in optimizers for parameter in parameters_of(optimizer)}
    return {
        name.replace("_orig_mod.", ""): parameter
        for name, parameter in module.named_parameters()
        if id(parameter) in ids and parameter.requires_grad
    }


def parameters_of(optimizer: Any) -> Iterable[torch.Tensor]:
    """Yields the parameters of all groups of an optimizer."""
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def names_by_id(module: nn.Module) -> dict[int, str]:
    """Returns the names that :func:`trained_parameters` gives, of all parameters of a module, by their ``id``."""
    return {id(parameter): name.replace("_orig_mod.", "") for name, parameter in module.named_parameters()}


def trained_networks(trained: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, nn.Module]:
    """Returns the direct children of a module that own trained parameters, by name."""
    owners = {name.split(".")[0] for name in trained}
    return {name: child for name, child in module.named_children() if name in owners}


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
