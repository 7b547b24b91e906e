"""Tells the weights that a policy plays from others of the module, such as those of target networks."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn

from rlwandb_callbacks.callbacks.evaluation.weight_tensors import weights_of
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.reachable import reachable
from rlwandb_callbacks.policies.resolve import resolve_policy


def played_names(module: nn.Module, policy: Any) -> Collection[str]:
    """Returns the names of the parameters and buffers of a module that evaluations may play.

    These are the tensors of the networks that the policy reaches and those that the module holds directly; all if the
    policy is a method of the module, or if its networks cannot be told.

    Args:
        module: The module.
        policy: ``evaluation.policy``.
    """
    weights = {name: tensor for name, tensor in weights_of(module).items() if tensor.layout is torch.strided}
    played = played_memories(module, policy)
    if played.isdisjoint(memories(weights.values())):
        return weights.keys()
    played |= memories(_own_tensors(module))
    return [name for name, tensor in weights.items() if _memory(tensor) in played]


def played_memories(module: nn.Module, policy: Any) -> set[int]:
    """Returns the addresses of the tensors that the networks of a policy hold; nothing if it cannot be found."""
    try:
        found = resolve_policy(module, policy)
    except PolicyError:  # the episodes come from validation_step
        return set()
    networks = [part.value for part in reachable(found) if isinstance(part.value, nn.Module)]
    return memories(tensor for network in networks for tensor in _own_tensors(network))


def memories(tensors: Iterable[torch.Tensor]) -> set[int]:
    """Returns the addresses of dense tensors, the same for those that share memory."""
    strided = (tensor for tensor in tensors if not nn.parameter.is_lazy(tensor) and tensor.layout is torch.strided)
    return {_memory(tensor) for tensor in strided}


def _own_tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(recurse=False), *network.buffers(recurse=False)]


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
