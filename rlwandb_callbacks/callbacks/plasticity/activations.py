"""Records the activations of networks while they run, without changing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules import activation, batchnorm, rnn
from torch.nn.utils import parametrize

from rlwandb_callbacks.callbacks.plasticity import slopes
from rlwandb_callbacks.callbacks.plasticity.hidden_layer import HiddenLayer, is_convolution, unit_dims

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

    The slopes of activation functions are read from the autograd graph, when the next layer is called with what they
    returned, see :mod:`rlwandb_callbacks.callbacks.plasticity.slopes`. Layers without an elementwise nonlinear function
    have none: those of a linear layer do not vary, and those of recurrent layers and gates (``GLU``) cannot be read.

    Attributes:
        activations: ``E_x|h_i(x)|`` of each hidden layer, shape ``[H]``, on its device. Each member of an ensemble
            (weights of shape ``[E, D, H]``) has its own.
        features: Input of the last layer, shape ``[..., D]``; that of the first member of an ensemble; None if it was
            not computed from the output of another layer.
    """

    activations: list[torch.Tensor] = field(default_factory=list)
    features: torch.Tensor | None = None
    _layers: set[int] = field(default_factory=set)
    _hidden: dict[slopes.Node, HiddenLayer] = field(default_factory=dict)
    _overwriting_slope: torch.Tensor | None = None
    _latest_input: torch.Tensor | None = None
    _latest_activation: torch.Tensor | None = None
    _awaits_activation: bool = False
    _channels: int | None = None
    _members: int | None = None
    _is_over: bool = False

    def record(self, module: nn.Module, input_: torch.Tensor, output: torch.Tensor) -> None:
        """Records one call of a layer or an activation module."""
        if self._is_over:
            return
        if not isinstance(module, ACTIVATIONS):
            self._record_layer(module, input_, output)
        elif self._awaits_activation:
            self._record_activation(output)

    def record_overwriting(self, module: nn.Module, input_: torch.Tensor) -> None:
        """Records the slope of an activation module that is about to overwrite its input."""
        if self._awaits_activation and not self._is_over:
            self._overwriting_slope = slopes.overwriting_slope(module, input_)

    def mean_slopes(self) -> list[torch.Tensor]:
        """Returns the mean slopes of the layers that have one and were called with different inputs, each ``[H]``."""
        return [
            layer.mean_slope for layer in self._hidden.values() if layer.mean_slope is not None and layer.inputs_differ
        ]

    def _record_activation(self, output: torch.Tensor) -> None:
        self._awaits_activation = False
        self._latest_activation = mean_activation(output, channels=self._channels, members=self._members)

    def _record_layer(self, layer: nn.Module, input_: torch.Tensor, output: torch.Tensor) -> None:
        if id(layer) in self._layers:  # a second pass, or a second time step, begins
            self._is_over = True
            return
        self._layers.add(id(layer))
        layers_before = slopes.layers_before(input_.grad_fn, self._hidden)
        self._record_slopes(layers_before, input_.grad_fn)
        comes_from_layers, is_new = bool(layers_before), input_ is not self._latest_input  # two heads share an input
        if self._latest_activation is not None:
            self.activations.extend(self._latest_activation)
        elif comes_from_layers and is_new:
            self.activations.extend(mean_activation(input_, channels=self._channels, members=self._members))
        units = unit_dims(layer, output.shape)
        members = units[0] if len(units) > 1 else None
        if comes_from_layers:
            self.features = input_.detach()
            if members is not None and input_.ndim == output.ndim:
                self.features = self.features.select(members, 0)
        self._latest_input, self._latest_activation, self._awaits_activation = input_, None, True
        self._channels, self._members = output.shape[1] if is_convolution(layer) else None, members
        if isinstance(layer, rnn.RNNBase):
            self._record_activation(output)
        # An in-place function on a view is in the graph of the tensor that the view belongs to.
        node = (output if output._base is None else output._base).grad_fn  # noqa: SLF001  # torch's only way to know
        if node is not None:
            self._hidden[node] = HiddenLayer.of(layer, input_, output)

    def _record_slopes(self, layers: Sequence[slopes.Node], node: slopes.Node) -> None:
        """Records the slopes between layers and the tensor that a node computed."""
        latest, overwriting, self._overwriting_slope = next(reversed(self._hidden), None), self._overwriting_slope, None
        for layer in layers:
            hidden = self._hidden[layer]
            if hidden.mean_slope is None and hidden.is_readable:
                slope = slopes.activation_slope(node, layer)
                hidden.set_slope(overwriting if slope is None and layer is latest else slope)


def mean_activation(values: torch.Tensor, *, channels: int | None = None, members: int | None = None) -> torch.Tensor:
    """Returns the mean absolute activation of each neuron, shape ``[E, H]`` or ``[1, H]``, ``float32``.

    Args:
        values: Activations, shape ``[..., H]``; of a convolution ``[B, C, ...]``, or flattened ``[B, C * …]``.
        channels: C if ``values`` come from a convolution, whose neurons are its channels.
        members: Dimension of the E members of an ensemble, if any.

    Example:
        >>> mean_activation(torch.tensor([[1.0, -2.0], [3.0, 0.0]])).tolist()
        [[2.0, 1.0]]
        >>> mean_activation(torch.tensor([[1.0, 3.0, 0.0, 0.0]]), channels=2).tolist()
        [[2.0, 0.0]]
    """
    sizes = values.detach().abs().float()
    if members is not None and sizes.ndim == 3:
        return sizes.movedim(members, 0).mean(1)
    if channels is None or sizes.ndim < 2 or sizes[0].numel() % channels:
        return sizes.reshape(1, -1, sizes.shape[-1]).mean(1)
    return sizes.reshape(1, len(sizes), channels, -1).mean((1, 3))


class ActivationRecorder:
    """Records the forward passes of networks until it is closed.

    PyTorch's global hooks are used, which are not stored in the networks: they can be pickled and copied meanwhile.

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
        self._handles = (
            nn.modules.module.register_module_forward_pre_hook(self._record_overwriting),
            nn.modules.module.register_module_forward_hook(self._record),
        )

    def _passes_called(self, module: nn.Module) -> list[ForwardPass]:
        """Returns the passes that a call of a module belongs to; none within compiled code."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return []
        return self._passes_of.get(id(module), [])

    def _record_overwriting(self, module: nn.Module, inputs: Any) -> None:
        passes = self._passes_called(module)
        if not passes or not getattr(module, "inplace", False):
            return
        input_ = inputs[0] if inputs else None
        if isinstance(input_, torch.Tensor) and not is_transformed(input_) and input_._base is not None:  # noqa: SLF001
            with self._guard(), torch.no_grad():
                for forward in passes:
                    forward.record_overwriting(module, input_)

    def _record(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        passes = self._passes_called(module)
        if not passes:
            return
        input_, output = inputs[0] if inputs else None, outputs[0] if isinstance(outputs, tuple) else outputs
        if isinstance(input_, torch.Tensor) and isinstance(output, torch.Tensor) and not is_transformed(output):
            with self._guard(), torch.no_grad():
                for forward in passes:
                    forward.record(module, input_, output)

    def close(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()


def is_transformed(tensor: torch.Tensor) -> bool:
    """Returns whether a tensor exists only within ``torch.vmap`` or another transform of ``torch.func``."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))  # noqa: SLF001  # torch's only way to know


def is_layer(module: nn.Module) -> bool:
    """Returns whether a module has a weight matrix of its own, also as a parametrization (``spectral_norm``)."""
    if isinstance(module, NORMS):
        return False
    if parametrize.is_parametrized(module):
        return len(list(module.children())) == 1
    if next(module.children(), None) is not None:
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
