"""Which parameters, and which networks, the optimizers train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rlwandb_callbacks.errors import ConfigError, nearest


def trained_parameters(optimizers: Any, module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that some optimizer holds and that need gradients, by their name in the module.

    The part of a name that ``torch.compile`` puts in is taken out, so that charts of both kinds of run line up.
    """
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    return {
        name.replace("_orig_mod.", ""): parameter
        for name, parameter in module.named_parameters()
        if id(parameter) in held and parameter.requires_grad
    }


def trained_networks(trained: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, nn.Module]:
    """The direct children of the module that own some of its trained parameters."""
    owners = {name.split(".")[0] for name in trained}
    return {name: child for name, child in module.named_children() if name in owners}


def named_networks(names: Sequence[str], module: nn.Module, *, setting: str) -> dict[str, nn.Module]:
    """Looks networks up by their dotted names.

    Args:
        names: As the user wrote them.
        module: The LightningModule.
        setting: Where the user wrote them, for the message.

    Raises:
        ConfigError: For a name that the module does not have.
    """
    known = dict(module.named_modules())
    for name in names:
        if not name or name not in known:
            children = [child for child, _ in module.named_children()]
            raise ConfigError(
                f"{setting} names {name!r}, which {type(module).__name__} does not have.{nearest(name, list(known))} "
                f"Its networks are {', '.join(children) or 'none'}."
            )
    return {name: known[name] for name in names}


def parameters_of(network: nn.Module, trained: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The parameters of a network that are among the trained ones."""
    held = {id(parameter) for parameter in trained}
    return [parameter for parameter in network.parameters() if id(parameter) in held]
