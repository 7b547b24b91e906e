"""Mean slope of the activation function of each unit of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules import conv

from rlwandb_callbacks.callbacks.plasticity import slopes

MIN_INPUTS = 8  # of a unit: a healthy ReLU is off for fewer inputs by chance


@dataclass
class HiddenLayer:
    """Layer that was called, and the slope of the activation function that follows it.

    Attributes:
        shape: Shape of the output.
        unit_dims: Dimensions of the output, negative, whose entries are different neurons: the channels of a
            convolution, else the last one; with the members of an ensemble, whose weight has shape ``[E, D, H]``.
        inputs_differ: Whether the layer was called with different inputs, shape ``[]``, on its device.
        is_readable: Whether the graph holds its values itself: activation checkpointing computes them again.
        mean_slope: Mean of ``|dh_i/dpre_i|`` over the inputs for each neuron, shape ``[H]``, on its device; None if it
            cannot be read.
    """

    shape: torch.Size
    unit_dims: tuple[int, ...]
    inputs_differ: torch.Tensor
    is_readable: bool
    mean_slope: torch.Tensor | None = None

    @classmethod
    def of(cls, layer: nn.Module, input_: torch.Tensor, output: torch.Tensor) -> HiddenLayer:
        """Describes a layer from one call."""
        units = unit_dims(layer, output.shape)
        differ = _rows_differ(input_, is_images=is_convolution(layer) and input_.ndim == 1 - units[0])
        return cls(output.shape, units, differ, is_readable=not slopes.are_saved_elsewhere())

    def set_slope(self, slope: torch.Tensor | None) -> None:
        """Averages slopes, shape ``[B, …]``, over the inputs if they can be assigned to the units."""
        per_unit = None if slope is None else self._per_unit(slope)
        if per_unit is not None and len(per_unit) >= MIN_INPUTS:
            self.mean_slope = per_unit.float().mean(0)

    def _per_unit(self, values: torch.Tensor) -> torch.Tensor | None:
        """Returns values with shape ``[N, H]``; None if it is unknown which unit they belong to."""
        sizes = [self.shape[dim] for dim in self.unit_dims]
        moved = [(1,), (-1,)] if len(sizes) == 1 else []  # units after a transposition
        for dims in [self.unit_dims, *moved]:
            if all(-values.ndim <= dim < values.ndim for dim in dims) and [values.shape[dim] for dim in dims] == sizes:
                return values.movedim(dims, tuple(range(-len(dims), 0))).reshape(-1, *sizes).flatten(1)
        return values.flatten(1) if values.ndim > 2 and [values[0].numel()] == sizes else None


def is_convolution(layer: nn.Module) -> bool:
    """Returns whether a layer is a convolution, whose neurons are its channels."""
    return isinstance(layer, conv._ConvNd)  # noqa: SLF001  # the common base of torch's convolutions


def unit_dims(layer: nn.Module, output: torch.Size) -> tuple[int, ...]:
    """Returns the dimensions of the output of a layer whose entries are different neurons, negative."""
    if isinstance(layer, conv._ConvNd):  # noqa: SLF001  # as in is_convolution
        return (-1 - len(layer.kernel_size),)
    members = {parameter.shape[0] for parameter in layer.parameters(recurse=False) if parameter.ndim == 3}
    found = [dim for dim in (-3, -2) if len(output) == 3 and output[dim] in members]
    return (*found[:1], -1)


def _rows_differ(input_: torch.Tensor, *, is_images: bool) -> torch.Tensor:
    """Returns whether the rows of an input differ, shape ``[]``: those of a single image if there is only one."""
    if is_images and len(input_) > 1:
        rows = input_.flatten(1)
    else:  # one row for each index of an embedding
        rows = input_.reshape(-1, *input_.shape[-1:]) if input_.is_floating_point() else input_.reshape(-1)
    return (rows != rows[:1]).any()
