"""Looks into networks while they run, without leaving anything on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules import activation, batchnorm, conv, rnn

NO_NONLINEARITY = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Softmin)
ACTIVATIONS = tuple(
    kind
    for kind in vars(activation).values()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind not in (nn.Module, *NO_NONLINEARITY)
)
NORMS = (nn.LayerNorm, nn.GroupNorm, batchnorm._NormBase)  # noqa: SLF001  # the base that torch documents by its heirs


@dataclass
class ForwardPass:
    """What is kept of the first forward pass of a network in which gradients are recorded.

    A layer is whatever holds a weight of its own (``Linear``, ``Conv2d``, a noisy layer, …). The activations behind
    a layer are what the next activation module (``ReLU``, ``Tanh``, …) gives; where there is none before the next layer
    is called, as with ``F.relu``, they are what that layer is given. What comes behind the last layer is the network's
    output, and left out. Features are what the last layer is given.

    Attributes:
        activations: ``E_x|h_i(x)|`` of each hidden layer, shape ``[H]``, on its device.
        features: What the last layer was given, shape ``[..., D]``; None where that was no output of another layer.
    """

    activations: list[torch.Tensor] = field(default_factory=list)
    features: torch.Tensor | None = None
    _layers: set[int] = field(default_factory=set)
    _given: torch.Tensor | None = None
    _behind_last_layer: torch.Tensor | None = None
    _awaits_activation: bool = False
    _channels: int | None = None
    _is_over: bool = False

    def saw(self, module: nn.Module, given: torch.Tensor, output: torch.Tensor) -> None:
        """Takes in one call of a layer or an activation module."""
        if self._is_over:
            return
        if not isinstance(module, ACTIVATIONS):
            self._saw_layer(module, given, output)
        elif self._awaits_activation:
            self._keep_activation(output)

    def _keep_activation(self, output: torch.Tensor) -> None:
        self._awaits_activation = False
        self._behind_last_layer = mean_activation(output, channels=self._channels)

    def _saw_layer(self, layer: nn.Module, given: torch.Tensor, output: torch.Tensor) -> None:
        if id(layer) in self._layers:  # a second pass, or a second time step, begins
            self._is_over = True
            return
        self._layers.add(id(layer))
        comes_from_layers, is_new = given.requires_grad, given is not self._given  # two heads are given the same
        if self._behind_last_layer is not None:
            self.activations.append(self._behind_last_layer)
        elif comes_from_layers and is_new:
            self.activations.append(mean_activation(given, channels=self._channels))
        if comes_from_layers:
            self.features = given.detach()
        self._given, self._behind_last_layer, self._awaits_activation = given, None, True
        self._channels = output.shape[1] if isinstance(layer, conv._ConvNd) else None  # noqa: SLF001  # as NORMS
        if isinstance(layer, rnn.RNNBase):
            self._keep_activation(output)


def mean_activation(values: torch.Tensor, *, channels: int | None) -> torch.Tensor:
    """Mean size of each neuron's activation.

    Args:
        values: Shape ``[..., H]``; of a convolution ``[B, C, ...]``, or ``[B, C * …]`` where that was flattened.
        channels: C where ``values`` come from a convolution, whose channels are its neurons.

    Returns:
        Shape ``[H]`` or ``[C]``, in single precision.

    Example:
        >>> mean_activation(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), channels=None).tolist()
        [2.0, 1.0]
        >>> mean_activation(torch.tensor([[1.0, 3.0, 0.0, 0.0]]), channels=2).tolist()
        [2.0, 0.0]
    """
    sizes = values.detach().abs().float()
    if channels is None or sizes.ndim < 2 or sizes[0].numel() % channels:
        return sizes.reshape(-1, sizes.shape[-1]).mean(0)
    return sizes.reshape(len(sizes), channels, -1).mean((0, 2))


class Probe:
    """Watches networks from when it is made until it is closed.

    The hook is PyTorch's global one and stands nowhere in the networks, so that they pickle and deep-copy meanwhile.

    Args:
        networks: By name.
        guard: Makes a context that keeps errors away from the forward pass.
    """

    def __init__(self, networks: Mapping[str, nn.Module], guard: Callable[[], AbstractContextManager[None]]) -> None:
        self.passes = {name: ForwardPass() for name in networks}
        self._guard = guard
        self._passes_of: dict[int, list[ForwardPass]] = {}
        for name, network in networks.items():
            for module in network.modules():
                if is_layer(module) or isinstance(module, ACTIVATIONS):
                    self._passes_of.setdefault(id(module), []).append(self.passes[name])
        self._handle = nn.modules.module.register_module_forward_hook(self._called)

    def _called(self, module: nn.Module, inputs: Any, output: Any) -> None:
        seen_by = self._passes_of.get(id(module))
        if not seen_by or not torch.is_grad_enabled():
            return
        given, answer = inputs[0] if inputs else None, output[0] if isinstance(output, tuple) else output
        if isinstance(given, torch.Tensor) and isinstance(answer, torch.Tensor):
            with self._guard(), torch.no_grad():
                for one in seen_by:
                    one.saw(module, given, answer)

    def close(self) -> None:
        """Watches no longer."""
        self._handle.remove()


def is_layer(module: nn.Module) -> bool:
    """Tells whether a module has a weight matrix of its own."""
    if isinstance(module, NORMS) or next(module.children(), None) is not None:
        return False
    return any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))


def is_compiled(module: nn.Module) -> bool:
    """Tells whether a module or a part of it is compiled: those see no hooks, and compile anew for one."""
    return any(
        hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None
        for part in module.modules()
    )


def sampled_rows(features: torch.Tensor, *, count: int) -> torch.Tensor:
    """At most ``count`` rows, spread evenly: shape ``[..., D]`` becomes ``[B, D]``.

    Example:
        >>> sampled_rows(torch.arange(5.0).reshape(5, 1), count=2).tolist()
        [[0.0], [4.0]]
    """
    rows = features.flatten(1) if features.ndim > 3 else features.reshape(-1, features.shape[-1])
    if len(rows) <= count:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, count, device=rows.device).round().long()]


@dataclass(frozen=True)
class Weights:
    """Parameters of a network, and what they were.

    Args:
        parameters: That an optimizer trains.
        before: Copies of them.
    """

    parameters: list[torch.Tensor]
    before: list[torch.Tensor]

    @classmethod
    @torch.no_grad()
    def copied(cls, parameters: list[torch.Tensor]) -> Weights:
        """Copies parameters as they are now."""
        return cls(parameters, [parameter.detach().clone() for parameter in parameters])

    @torch.no_grad()
    def norms(self) -> torch.Tensor:
        """L2 norms of the weights now, of those before, and of what was added: shape ``[3, P]``, on one device."""
        now = [parameter.detach() for parameter in self.parameters]
        added = [after - before for after, before in zip(now, self.before, strict=True)]
        device = now[0].device
        rows = [[torch.linalg.vector_norm(one.float()).to(device) for one in row] for row in (now, self.before, added)]
        return torch.stack([torch.stack(row) for row in rows])
