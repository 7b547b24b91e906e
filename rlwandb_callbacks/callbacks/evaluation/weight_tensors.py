"""Parameters and buffers of a module by name: copies, digests, and other values for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import nn

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of an element
Weights: TypeAlias = Mapping[str, torch.Tensor]
"""Values of parameters and buffers by name."""
Digest: TypeAlias = Mapping[str, int]
"""Sum of the bits of each floating-point parameter and buffer: exact, and the same on every device."""


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns parameters and buffers by name, but those of lazy layers that have none yet."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor for name, tensor in named.items() if not nn.parameter.is_lazy(tensor)}


def copied_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns copies of the floating-point parameters and buffers."""
    floats = {name: tensor for name, tensor in weights_of(module).items() if tensor.is_floating_point()}
    return {name: tensor.detach().clone() for name, tensor in floats.items()}


@contextlib.contextmanager
def with_weights(module: nn.Module, weights: Weights) -> Iterator[None]:
    """Gives a module other parameters and buffers inside the block, as far as there are any of the same shape.

    Values are copied in place, as Lightning does for validation, so that everything that shares their memory sees them.
    """
    live = weights_of(module) if weights else {}
    pairs = [(live[name], weights[name]) for name in live if name in weights]
    pairs = [(tensor, values) for tensor, values in pairs if tensor.shape == values.shape]
    before = [tensor.detach().clone() for tensor, _ in pairs]
    try:
        for tensor, values in pairs:
            _set(tensor, values)
        yield
    finally:
        for (tensor, _), values in zip(pairs, before, strict=True):
            _set(tensor, values)


def digest(module: nn.Module, weights: Weights | None = None, *, names: Collection[str] | None = None) -> Digest:
    """Returns what differs where the floating-point parameters or buffers of a module differ; with ``names``, of these.

    With other ``weights``, it is that of the module with these values, which may have another dtype than the module.
    """
    replaced = weights or {}
    named = {name: tensor for name, tensor in weights_of(module).items() if _has_bits(tensor)}
    if names is not None:
        named = {name: named[name] for name in names if name in named}
    values = {name: replaced.get(name, tensor).to(tensor.dtype) for name, tensor in named.items()}
    return {name: _sum_of_bits(tensor) for name, tensor in _without_masks(values).items()}


@contextlib.contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Moves a module to a device inside the block, and back; one that is there already is left alone."""
    first = next(iter(weights_of(module).values()), None)
    if first is None or first.device == device:
        yield
        return
    module.to(device)
    try:
        yield
    finally:
        module.to(first.device)


def _without_masks(values: Weights) -> Weights:
    """Returns weights as ``torch.nn.utils.prune.remove`` leaves them, so that it changes nothing."""
    pruned = {name.removesuffix("_mask") for name in values if name.endswith("_mask")}
    pruned = {name for name in pruned if f"{name}_orig" in values}
    masked = {name: values[f"{name}_orig"].detach() * values[f"{name}_mask"] for name in pruned}
    parts = {f"{name}{part}" for name in pruned for part in ("_orig", "_mask")}
    return {name: tensor for name, tensor in values.items() if name not in parts} | masked


def _sum_of_bits(tensor: torch.Tensor) -> int:
    return int(tensor.detach().contiguous().view(INTEGERS[tensor.element_size()]).sum(dtype=torch.int64))


def _has_bits(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout is torch.strided and tensor.device.type != "meta"


def _set(tensor: torch.Tensor, values: torch.Tensor) -> None:
    # `.data`, as a graph of the module that waits for its backward pass must not count this as a change
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        tensor.data.copy_(values.detach())
