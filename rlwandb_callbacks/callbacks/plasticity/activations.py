"""Records the activations of networks while they run, without changing them."""

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
NORMS = (nn.LayerNorm, nn.GroupNorm, batchnorm._NormBase)  # noqa: SLF001  # the common base of torch's batch and instance norms


@dataclass
class ForwardPass:
    """Activations and features of the first forward pass of a network in which gradients are recorded.

    A layer is a module with a weight of its own (``Linear``, ``Conv2d``, a noisy layer, …). The activations of a layer
    are the output of the next activation module (``ReLU``, ``Tanh``, …); if there is none before the next layer is
    called, as with ``F.relu``, they are the input of that layer. The output of the last layer is that of the network
    and left out. Features are the input of the last layer.

    Attributes:
        activations: ``E_x|h_i(x)|`` of each hidden layer, shape ``[H]``, on its device.
        features: Input of the last layer, shape ``[..., D]``; None if that was not the output of another layer.
    """

    activations: list[torch.Tensor] = field(default_factory=list)
    features: torch.Tensor | None = None
    _layers: set[int] = field(default_factory=set)
    _latest_input: torch.Tensor | None = None
    _latest_activation: torch.Tensor | None = None
    _awaits_activation: bool = False
    _channels: int | None = None
    _is_over: bool = False

    def record(self, module: nn.Module, input_: torch.Tensor, output: torch.Tensor) -> None:
        """Records one call of a layer or an activation module."""
        if self._is_over:
            return
        if not isinstance(module, ACTIVATIONS):
            self._record_layer(module, input_, output)
        elif self._awaits_activation:
            self._record_activation(output)

    def _record_activation(self, output: torch.Tensor) -> None:
        self._awaits_activation = False
        self._latest_activation = mean_activation(output, channels=self._channels)

    def _record_layer(self, layer: nn.Module, input_: torch.Tensor, output: torch.Tensor) -> None:
        if id(layer) in self._layers:  # a second pass, or a second time step, begins
            self._is_over = True
            return
        self._layers.add(id(layer))
        comes_from_layers, is_new = input_.requires_grad, input_ is not self._latest_input  # two heads share an input
        if self._latest_activation is not None:
            self.activations.append(self._latest_activation)
        elif comes_from_layers and is_new:
            self.activations.append(mean_activation(input_, channels=self._channels))
        if comes_from_layers:
            self.features = input_.detach()
        self._latest_input, self._latest_activation, self._awaits_activation = input_, None, True
        self._channels = output.shape[1] if isinstance(layer, conv._ConvNd) else None  # noqa: SLF001  # as NORMS
        if isinstance(layer, rnn.RNNBase):
            self._record_activation(output)


def mean_activation(values: torch.Tensor, *, channels: int | None) -> torch.Tensor:
    """Returns the mean absolute activation of each neuron, shape ``[H]`` or ``[C]``, ``float32``.

    Args:
        values: Activations, shape ``[..., H]``; of a convolution ``[B, C, ...]``, or flattened ``[B, C * …]``.
        channels: C if ``values`` come from a convolution, whose neurons are its channels.

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


class ActivationRecorder:
    """Records the forward passes of networks until it is closed.

    PyTorch's global hook is used, which is not stored in the networks: they can be pickled and copied meanwhile.

    Args:
        networks: Networks by name.
        guard: Returns a context that keeps errors away from the forward pass.
    """

    def __init__(self, networks: Mapping[str, nn.Module], guard: Callable[[], AbstractContextManager[None]]) -> None:
        self.passes = {name: ForwardPass() for name in networks}  # the first one of each network
        self._guard = guard
        self._passes_of: dict[int, list[ForwardPass]] = {}
        for name, network in networks.items():
            for module in network.modules():
                if is_layer(module) or isinstance(module, ACTIVATIONS):
                    self._passes_of.setdefault(id(module), []).append(self.passes[name])
        self._handle = nn.modules.module.register_module_forward_hook(self._record)

    def _record(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        passes = self._passes_of.get(id(module))
        if not passes or not torch.is_grad_enabled():
            return
        input_, output = inputs[0] if inputs else None, outputs[0] if isinstance(outputs, tuple) else outputs
        if isinstance(input_, torch.Tensor) and isinstance(output, torch.Tensor):
            with self._guard(), torch.no_grad():
                for forward in passes:
                    forward.record(module, input_, output)

    def close(self) -> None:
        """Removes the hook."""
        self._handle.remove()


def is_layer(module: nn.Module) -> bool:
    """Returns whether a module has a weight matrix of its own."""
    if isinstance(module, NORMS) or next(module.children(), None) is not None:
        return False
    return any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))


def is_compiled(module: nn.Module) -> bool:
    """Returns whether a module or a part of it is compiled: these ignore hooks or are compiled again for them."""
    return any(
        hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None
        for part in module.modules()
    )


def sampled_rows(features: torch.Tensor, *, count: int) -> torch.Tensor:
    """Returns at most ``count`` evenly spaced rows of features: shape ``[..., D]`` becomes ``[B, D]``.

    Example:
        >>> sampled_rows(torch.arange(5.0).reshape(5, 1), count=2).tolist()
        [[0.0], [4.0]]
    """
    rows = features.flatten(1) if features.ndim > 3 else features.reshape(-1, features.shape[-1])
    if len(rows) <= count:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, count, dtype=torch.float32, device=rows.device).round().long()]
