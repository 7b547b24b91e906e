"""Copies of many tensors, made at once on their devices and moved to the host in one transfer per device."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rlwandb_callbacks.callbacks.loss_scale import divided


class HostArray(NamedTuple):
    """Elements of a tensor."""

    values: NDArray[np.floating[Any]]  # shape [N], float32 or float64; of complex numbers the real part
    implicit_zeros: int = 0  # number of further zeros, which a sparse tensor does not store


class _Slice(NamedTuple):
    """A tensor's place in a flat tensor."""

    key: str
    size: int
    implicit_zeros: int


class _FlatTensor(NamedTuple):
    """Tensors of one device and one type, one after the other."""

    values: torch.Tensor
    slices: tuple[_Slice, ...]


class TensorCopies:
    """Copies of tensors on their devices; the tensors may change afterwards.

    Args:
        tensors: Tensors by key, of any device, layout and floating or complex type.
        sample: Largest number of elements to copy of each tensor, evenly spaced; None for all.
        scalars: Tensors of one element by key, which nothing changes later; they are converted to ``float32``.
        divisor: Tensor of one element by which the copies of ``tensors`` are divided.
        are_owned: Nothing changes the tensors later; they are kept as they are on the CPU.

    Example:
        >>> copies = TensorCopies({"a": torch.ones(2, 2), "b": torch.zeros(3).half()})
        >>> {key: array.values.tolist() for key, array in HostTransfer([copies]).arrays().items()}
        {'a': [1.0, 1.0, 1.0, 1.0], 'b': [0.0, 0.0, 0.0]}
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        *,
        sample: int | None = None,
        scalars: Mapping[str, torch.Tensor] | None = None,
        divisor: torch.Tensor | None = None,
        are_owned: bool = False,
    ) -> None:
        self.flat_tensors: list[_FlatTensor] = []
        on_devices: dict[tuple[torch.device, torch.dtype], list[tuple[_Slice, torch.Tensor]]] = defaultdict(list)
        for key, tensor in tensors.items():
            part, values = _sampled(key, tensor, sample)
            if values.device.type == "cpu":
                # Each tensor has its own copy: one large buffer would be newly mapped memory each time, whose page
                # faults cost several times as much as copying.
                is_copy = are_owned or divisor is not None
                self.flat_tensors.append(_FlatTensor(divided(values if is_copy else values.clone(), divisor), (part,)))
            else:
                on_devices[values.device, values.dtype].append((part, values))
        for group in on_devices.values():
            slices, pieces = zip(*group, strict=True)
            self.flat_tensors.append(_FlatTensor(divided(torch.cat(pieces), divisor), slices))
        self.flat_tensors += _flat_scalars(scalars or {})


def _sampled(key: str, tensor: torch.Tensor, sample: int | None) -> tuple[_Slice, torch.Tensor]:
    stored = stored_values(tensor).reshape(-1)
    values = subsampled(stored, sample)
    zeros = tensor.numel() - stored.numel() if tensor.is_sparse else 0
    if zeros and values is not stored:
        zeros = round(zeros * values.numel() / stored.numel())
    return _Slice(key, values.numel(), zeros), values


def _flat_scalars(scalars: Mapping[str, torch.Tensor]) -> list[_FlatTensor]:
    by_device: dict[torch.device, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, scalar in scalars.items():
        by_device[scalar.device][key] = scalar.float()
    return [
        _FlatTensor(torch.stack(list(group.values())), tuple(_Slice(key, 1, 0) for key in group))
        for group in by_device.values()
    ]


class HostTransfer:
    """Transfer of copies, of one or several moments, to the host: one per device; only :meth:`arrays` waits for it."""

    def __init__(self, copies: Iterable[TensorCopies]) -> None:
        by_device: dict[torch.device, list[_FlatTensor]] = defaultdict(list)
        for flat in (flat for each in copies for flat in each.flat_tensors):
            by_device[flat.values.device].append(flat)
        self._flat_tensors = [flat for group in by_device.values() for flat in group]
        self._transfers = [_DeviceTransfer([flat.values for flat in group]) for group in by_device.values()]

    def arrays(self) -> dict[str, HostArray]:
        """Waits for the transfers and returns the copies by key; meant for another thread than the one that trains."""
        values = (as_floats(tensor) for transfer in self._transfers for tensor in transfer.received())
        arrays: dict[str, HostArray] = {}
        for flat, floats in zip(self._flat_tensors, values, strict=True):
            start = 0
            for key, size, zeros in flat.slices:
                arrays[key] = HostArray(floats[start : start + size], zeros)
                start += size
        return arrays


class _DeviceTransfer:
    """Moves flat tensors of one device as one buffer of bytes."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self._sent = tensors
        self._bytes: torch.Tensor | None = None
        self._arrived: torch.cuda.Event | None = None
        if tensors[0].device.type != "cpu":
            # Wide types first, so that each begins at a multiple of its width.
            self._order = sorted(range(len(tensors)), key=lambda index: -tensors[index].element_size())
            pieces = [tensors[index].view(torch.uint8) for index in self._order]
            self._send(pieces[0] if len(pieces) == 1 else torch.cat(pieces))

    def _send(self, payload: torch.Tensor) -> None:
        if payload.device.type != "cuda":
            self._bytes = payload.to("cpu")
            return
        self._bytes = torch.empty(payload.shape, dtype=payload.dtype, pin_memory=True)
        self._bytes.copy_(payload, non_blocking=True)
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self._arrived.record(torch.cuda.current_stream(payload.device))

    def received(self) -> list[torch.Tensor]:
        if self._bytes is None:
            return self._sent
        if self._arrived is not None:
            self._arrived.synchronize()
        host: dict[int, torch.Tensor] = {}
        start = 0
        for index in self._order:
            sent = self._sent[index]
            end = start + sent.numel() * sent.element_size()
            host[index] = self._bytes[start:end].view(sent.dtype)
            start = end
        return [host[index] for index in range(len(self._sent))]


def stored_values(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the elements that a tensor stores: all, those of a sparse tensor, or the local shard of a DTensor."""
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    tensor = tensor.detach()
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def subsampled(values: torch.Tensor, limit: int | None) -> torch.Tensor:
    """Returns evenly spaced elements of a flat tensor, at most ``limit``; None for all.

    Among the strides that keep at least four fifths of ``limit``, the one with the smallest common divisor with the
    number of elements is taken: a stride of 512 would select a single column of a matrix with 512 columns.

    Example:
        >>> subsampled(torch.arange(32), 8)
        tensor([ 0,  5, 10, 15, 20, 25, 30])
    """
    count = values.numel()
    if limit is None or count <= limit:
        return values
    least = math.ceil(count / limit)
    stride = min(range(least, least + least // 4 + 1), key=lambda distance: math.gcd(distance, count))
    return values[::stride]


def as_floats(values: torch.Tensor) -> NDArray[np.floating[Any]]:
    """Converts a flat tensor on the host to ``float32``, or to ``float64`` if it is of that type.

    numpy converts ``bfloat16``, so that no threads of torch are used.
    """
    if values.dtype == torch.bfloat16:
        halves = values.view(torch.int16).numpy().view(np.uint16)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    array = values.numpy()
    return array if array.dtype == np.float64 else np.asarray(array.real, dtype=np.float32)
