"""Parameters and networks that the optimizers train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


def trained_parameters(optimizers: Iterable[Any], module: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters of a module that need gradients and belong to one of the optimizers, by dotted name.

    The ``_orig_mod.`` that ``torch.compile`` adds to names is removed, so that compiled and other runs share charts.
    """
    ids = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    return {
        name.replace("_orig_mod.", ""): parameter
        for name, parameter in module.named_parameters()
        if id(parameter) in ids and parameter.requires_grad
    }


def trained_networks(trained: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, nn.Module]:
    """Returns the direct children of a module that own trained parameters, by name."""
    owners = {name.split(".")[0] for name in trained}
    return {name: child for name, child in module.named_children() if name in owners}
