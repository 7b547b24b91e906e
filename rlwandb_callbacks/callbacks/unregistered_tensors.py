"""Tensors that optimizers train and that are no parameters of the module: where it holds them, and what saves them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from rlwandb_callbacks.core.class_names import LIGHTNING_PACKAGES, is_overridden
from rlwandb_callbacks.policies.reachable import MAX_ENTRIES, own_attributes, reachable

WRAPPERS = frozenset({"_orig_mod", "_param_td", "_tensordict"})  # attributes by which libraries wrap the user's own
NAMED_TENSORS = 3  # in a message


class UnregisteredTensor(NamedTuple):
    """A tensor of an optimizer that is no parameter of the module.

    Args:
        name: Attributes and keys that lead to it from the module, joined by dots: ``critic_params.0.weight``. If none
            do, ``optimizer<i>`` and its name or position there.
        owner: Name of what holds it; empty if that is the module itself.
        value: The tensor. In one of ``torch.func.stack_module_state``, the first dimension is the member.
    """

    name: str
    owner: str
    value: torch.Tensor


def unregistered_tensors(optimizers: Sequence[Any], module: nn.Module) -> list[UnregisteredTensor]:
    """Finds the tensors of all optimizers that are no parameters of a module, each once, in their order there.

    ``torch.func.stack_module_state``, tensors with ``requires_grad`` and networks in plain lists make such tensors. The
    module is searched only if there are some.
    """
    registered = {id(parameter) for parameter in module.parameters()}
    wanted = {
        id(tensor): UnregisteredTensor(f"{owner}.{name}", owner, tensor)
        for owner, name, tensor in _tensors_of(optimizers)
        if id(tensor) not in registered
    }
    remaining = set(wanted)
    for owner, name, value in _attributes_in(module) if wanted else ():
        if id(value) in remaining:
            remaining.discard(id(value))
            wanted[id(value)] = UnregisteredTensor(f"{owner}.{name}" if owner else name, owner, value)
            if not remaining:
                break
    return list(wanted.values())


def _tensors_of(optimizers: Sequence[Any]) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Yields the tensors of optimizers, with the name of the optimizer and their own name or position there."""
    for index, optimizer in enumerate(optimizers):
        position = 0
        for group in optimizer.param_groups:
            names = group.get("param_names") or ()
            for place, tensor in enumerate(group["params"]):
                yield f"optimizer{index}", str(names[place] if names else position), tensor
                position += 1


def _attributes_in(module: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Yields what a module consists of, with the names of its owner and of itself there, breadth first."""
    for part in reachable(module):
        owner = ".".join(str(each) for each in part.path[1:] if each != "" and each not in WRAPPERS)
        for name, value in _direct(part.value):
            yield owner, str(name), value


def _direct(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, nn.Module):
        return (*value.named_parameters(recurse=False), *(own_attributes(value) or {}).items())
    if isinstance(value, dict | list | tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return tuple(entries) if len(value) <= MAX_ENTRIES else ()
    return (own_attributes(value) or {}).items()


def unregistered_networks(tensors: Iterable[torch.Tensor], module: nn.Module) -> dict[str, nn.Module]:
    """Finds the outermost networks that hold some of the tensors and are no submodules of a module, by name."""
    registered = {id(each) for each in module.modules()}
    remaining = {id(tensor) for tensor in tensors}
    networks: dict[str, nn.Module] = {}
    for part in reachable(module) if remaining else ():
        if not isinstance(part.value, nn.Module) or id(part.value) in registered:
            continue
        held = remaining & {id(parameter) for parameter in part.value.parameters()}
        if held:
            networks[".".join(name for name in part.name.split(".") if name not in WRAPPERS)] = part.value
            remaining -= held
    return networks


def describe_unsaved(tensors: Sequence[UnregisteredTensor], module: nn.Module) -> str | None:
    """Returns a warning that checkpoints do not hold some of the tensors; None if ``state_dict`` has them all."""
    if not tensors:
        return None
    saved = {_storage(tensor) for tensor in _tensors_in(module.state_dict(keep_vars=True))}
    names = [tensor.name for tensor in tensors if _storage(tensor.value) not in saved]
    if not names:
        return None
    more = f" and {len(names) - NAMED_TENSORS} more" if len(names) > NAMED_TENSORS else ""
    listed = f"{', '.join(names[:NAMED_TENSORS])}{more}"
    owner = type(module).__name__
    known = f"the optimizers train tensors that are neither parameters of {owner} nor in its state_dict ({listed})"
    if is_overridden(module, "on_save_checkpoint", packages=LIGHTNING_PACKAGES):
        return f"{known}. Checkpoints hold them only if {owner}.on_save_checkpoint saves them; make sure that it does."
    return (
        f"{known}, so no checkpoint holds them, and what they have learned is lost when one is loaded. Register them "
        "before the optimizer is made (nn.Parameter, nn.ModuleList, or nn.ParameterDict, whose keys must not hold "
        "dots), or save and load them in on_save_checkpoint and on_load_checkpoint."
    )


def _storage(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Returns what tensors have in common that share memory."""
    try:
        return str(tensor.device), tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse tensors and some subclasses have no storage of their own
        return (id(tensor),)


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _tensors_in(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors_in(entry)
