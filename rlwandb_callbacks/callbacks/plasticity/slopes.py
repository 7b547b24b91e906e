"""Reads the slopes of activation functions from the autograd graph that a forward pass leaves.

A node of the graph holds what its derivative needs, whether the function was called as a module, as a function or in
place. Calling a single node evaluates that derivative: no hook of a user runs, no buffer is freed and no gradient is
stored.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence
from types import FrameType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.utils import checkpoint

Node: TypeAlias = Any  # torch.autograd.graph.Node: the classes of torch's own nodes share no Python base

LINEAR = frozenset({"Add", "Neg", "Rsub", "Sub", "ToCopy"})
PRODUCTS = frozenset({"Div", "Mul"})  # linear if only one factor, the numerator of a division, varies
_NAMES = """
    Abs Acos Acosh Asin Asinh Atan Atanh Celu Clamp ClampMax ClampMin Cos Cosh Elu Erf Erfc Exp Exp2 Expm1 Gelu
    Hardshrink Hardsigmoid Hardswish Hardtanh LeakyRelu Log Log10 Log1P Log2 LogSigmoid Logaddexp MaskedFill Maximum
    Minimum Mish Pow PreluKernel Reciprocal Relu RreluWithNoise Rsqrt Sgn Sigmoid Sign Silu Sin Sinc Sinh Softplus
    Softshrink Sqrt Tan Tanh Threshold Where
"""
NONLINEAR = frozenset(_NAMES.split())
MAX_NODES = 10_000  # between two layers; an unrolled recurrence has about 20 for each time step
_NATIVE_NAME = re.compile(r"(\w+)Backward\d+")  # a torch.autograd.Function of a user has no number


def layers_before(node: Node | None, layers: Collection[Node]) -> list[Node]:
    """Returns the nodes of layers whose output a tensor was computed from without another of these layers between.

    Args:
        node: ``grad_fn`` of the tensor; None if there is none.
        layers: ``grad_fn`` of the output of each layer.
    """
    return [found for found in _walk(node, layers) if found in layers]


def activation_slope(node: Node, layer: Node) -> torch.Tensor | None:
    """Returns the slope ``|dh/dpre|`` of the activation function that follows a layer, elementwise.

    The activation function is the chain of elementwise functions closest to the layer, from its first to its last
    nonlinear one; normalization, pooling, reshaping and dropout are not part of it.

    Args:
        node: ``grad_fn`` of a tensor that was computed from the output of the layer.
        layer: ``grad_fn`` of that output.

    Returns:
        Slope in the shape of the function's input; None if no elementwise nonlinear function can be read.
    """
    path = _path(node, layer)
    slope = chain = None
    while path and node is not layer:
        region, following = _until_single(node, path)
        if not all(_name(part) in LINEAR | PRODUCTS | NONLINEAR for part in region):
            chain = None
        elif chain is not None or not all(_is_linear(part, path) for part in region):
            chain = _backward(region, following, chain if chain is not None else ones_like_output(node), path)
            slope = slope if all(_is_linear(part, path) for part in region) else chain
        node = following
    return None if slope is None else slope.abs()


def overwriting_slope(module: nn.Module, input_: torch.Tensor) -> torch.Tensor | None:
    """Returns the slope of an activation module that is about to overwrite a view, of which the graph keeps no node."""
    if isinstance(module, nn.RReLU):  # draws random numbers
        return None
    with torch.enable_grad():
        copy = input_.detach().requires_grad_().clone()
        before, output = copy.grad_fn, module.forward(copy)
    return activation_slope(output.grad_fn, before) if output.grad_fn is not None else None


def are_saved_elsewhere() -> bool:
    """Returns whether nodes made now do not hold the values they save, as within activation checkpointing."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)  # noqa: SLF001  # torch's only way to know
    return is_checkpointing(sys._getframe()) if top is None else top(False) is not None  # noqa: SLF001  # older torch


def is_checkpointing(frame: FrameType | None) -> bool:
    """Returns whether a frame runs within ``torch.utils.checkpoint``."""
    while frame is not None and frame.f_code.co_filename != checkpoint.__file__:
        frame = frame.f_back
    return frame is not None


def _walk(node: Node | None, layers: Collection[Node]) -> list[Node]:
    """Returns all nodes that a node depends on, up to and including those of layers; none if they are too many."""
    first = min((layer._sequence_nr() for layer in layers), default=0)  # noqa: SLF001  # older nodes lead to no layer
    seen: dict[Node, None] = {}
    waiting = [node] if layers else []
    while waiting:
        part = waiting.pop()
        if part is None or part in seen or part._sequence_nr() < first:  # noqa: SLF001  # as above
            continue
        seen[part] = None
        if len(seen) > MAX_NODES:
            return []
        if part not in layers:
            waiting += [following for following, _ in part.next_functions]
    return list(seen)


def _path(node: Node, layer: Node) -> set[Node]:
    """Returns the nodes on the ways from a node to that of a layer, both included; none if there is no way."""
    path = {layer}
    # A node is newer than all that it depends on.
    for part in sorted(_walk(node, [layer]), key=lambda part: part._sequence_nr()):  # noqa: SLF001
        if any(following in path for following, _ in part.next_functions):
            path.add(part)
    return path if node in path else set()


def _until_single(node: Node, path: set[Node]) -> tuple[list[Node], Node]:
    """Returns the nodes from a node to the next one that all ways to the layer pass, and that one."""
    region: list[Node] = []
    waiting = {node}
    while not region or len(waiting) > 1:
        newest = max(waiting, key=lambda part: part._sequence_nr())  # noqa: SLF001
        waiting = waiting - {newest} | {following for following, _ in newest.next_functions if following in path}
        region.append(newest)
    return region, waiting.pop()


def _backward(region: Sequence[Node], end: Node, gradient: torch.Tensor | None, path: set[Node]) -> torch.Tensor | None:
    """Propagates a gradient through elementwise nodes, newest first; None if it ends in several outputs of a node."""
    if gradient is None:
        return None
    gradients, outputs = {region[0]: gradient}, set()
    for part in region:
        results = part(gradients.pop(part))
        results = results if isinstance(results, tuple) else (results,)
        for (following, output), result in zip(part.next_functions, results, strict=False):
            if following in path:
                gradients[following] = gradients[following] + result if following in gradients else result
                outputs |= {output} if following is end else set()
    return gradients[end] if len(outputs) == 1 else None


def _name(node: Node) -> str | None:
    """Returns the name of a function of torch, as in ``ReluBackward0``; None for functions of users."""
    match = _NATIVE_NAME.fullmatch(node.name())
    return match[1] if match else None


def _is_linear(node: Node, path: set[Node]) -> bool:
    name, varies = _name(node), [following in path for following, _ in node.next_functions]
    if name in PRODUCTS:
        return sum(varies) == 1 and (name == "Mul" or varies[0])
    return name in LINEAR


def ones_like_output(node: Node) -> torch.Tensor | None:
    """Returns ones in the shape of the output of an elementwise node; None if the shape cannot be known."""
    if not hasattr(node, "_input_metadata"):  # older torch
        return ones_like_saved(node)
    (output,) = node._input_metadata  # noqa: SLF001  # torch's only description of what a node computed
    return torch.ones(tuple(output.shape), dtype=output.dtype, device=output.device)


def ones_like_saved(node: Node) -> torch.Tensor | None:
    """Returns ones in the shape to which the tensors that a node saved are broadcast; None if it saved none."""
    values = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    saved = [value for value in values if isinstance(value, torch.Tensor)]
    if not saved:
        return None
    like = next((value for value in saved if value.is_floating_point()), saved[0].float())
    return like.new_ones(np.broadcast_shapes(*(tuple(value.shape) for value in saved)))
