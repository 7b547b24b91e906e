"""Copies of many tensors, made at once where they lie, and moved to the host in one piece."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray


class HostArray(NamedTuple):
    """What was in a tensor.

    Args:
        values: Shape ``[N]``, ``float32`` or ``float64``; of complex numbers the real part.
        implicit_zeros: Zeros beside these, which a sparse tensor does not store.
    """

    values: NDArray[np.floating[Any]]
    implicit_zeros: int = 0

    @property
    def element_count(self) -> int:
        """How many elements there are, with the implicit zeros."""
        return self.values.size + self.implicit_zeros


class _Part(NamedTuple):
    key: str
    size: int
    implicit_zeros: int


class _Flat(NamedTuple):
    """Tensors of one device and one type, one after the other."""

    values: torch.Tensor
    parts: tuple[_Part, ...]


class TensorCopies:
    """Copies of tensors, which may change or go away afterwards.

    Args:
        tensors: Of any device, layout and floating or complex type, by key.
        sample: At most so many elements of each, evenly spread; None for all.
        numbers: Tensors of one element that nobody else changes, by key; they become ``float32``.

    Example:
        >>> copies = TensorCopies({"a": torch.ones(2, 2), "b": torch.zeros(3).half()})
        >>> {key: array.values.tolist() for key, array in HostCopies([copies]).arrays().items()}
        {'a': [1.0, 1.0, 1.0, 1.0], 'b': [0.0, 0.0, 0.0]}
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        *,
        sample: int | None = None,
        numbers: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.flats: list[_Flat] = []
        elsewhere: dict[tuple[torch.device, torch.dtype], list[tuple[_Part, torch.Tensor]]] = defaultdict(list)
        for key, tensor in tensors.items():
            part, values = _part(key, tensor, sample)
            if values.device.type == "cpu":
                # One by one: a piece as large as all together would be new memory each time, whose pages cost the
                # system several times what copying costs.
                self.flats.append(_Flat(values.clone(), (part,)))
            else:
                elsewhere[values.device, values.dtype].append((part, values))
        for group in elsewhere.values():
            parts, pieces = zip(*group, strict=True)
            self.flats.append(_Flat(torch.cat(pieces), parts))
        self.flats += _flats_of_numbers(numbers or {})


def _flats_of_numbers(numbers: Mapping[str, torch.Tensor]) -> list[_Flat]:
    by_device: dict[torch.device, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, number in numbers.items():
        by_device[number.device][key] = number.float()
    return [
        _Flat(torch.stack(list(group.values())), tuple(_Part(key, 1, 0) for key in group))
        for group in by_device.values()
    ]


def _part(key: str, tensor: torch.Tensor, sample: int | None) -> tuple[_Part, torch.Tensor]:
    stored = stored_values(tensor).reshape(-1)
    values = thinned(stored, sample)
    zeros = tensor.numel() - stored.numel() if tensor.is_sparse else 0
    if zeros and values is not stored:
        zeros = round(zeros * values.numel() / stored.numel())
    return _Part(key, values.numel(), zeros), values


class HostCopies:
    """Copies on their way to the host: one transfer per device, for which nobody waits but :meth:`arrays`.

    Args:
        copies: What was copied, maybe at several moments.
    """

    def __init__(self, copies: Iterable[TensorCopies]) -> None:
        by_device: dict[torch.device, list[_Flat]] = defaultdict(list)
        for flat in (flat for each in copies for flat in each.flats):
            by_device[flat.values.device].append(flat)
        self._flats = [flat for flats in by_device.values() for flat in flats]
        self._transfers = [_Transfer([flat.values for flat in flats]) for flats in by_device.values()]

    def arrays(self) -> dict[str, HostArray]:
        """Waits until all is here; meant for another thread than the one that trains."""
        values = (as_floats(tensor) for transfer in self._transfers for tensor in transfer.received())
        arrays: dict[str, HostArray] = {}
        for flat, floats in zip(self._flats, values, strict=True):
            start = 0
            for key, size, zeros in flat.parts:
                arrays[key] = HostArray(floats[start : start + size], zeros)
                start += size
        return arrays


class _Transfer:
    """Moves flat tensors of one device as one piece of bytes."""

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
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves its type out
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
    """The numbers that a tensor holds: of a sparse one those that are stored, of a sharded one those on this rank."""
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    tensor = tensor.detach()
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def thinned(values: torch.Tensor, limit: int | None) -> torch.Tensor:
    """Leaves out elements at equal distances.

    Of the distances that keep at least four fifths of ``limit``, one is taken that has few divisors in common with the
    number of elements: a distance of 512 would see a single column of a matrix that has as many.

    Args:
        values: Shape ``[N]``.
        limit: How many elements to keep at most; None for all.

    Example:
        >>> thinned(torch.arange(32), 8)
        tensor([ 0,  5, 10, 15, 20, 25, 30])
    """
    count = values.numel()
    if limit is None or count <= limit:
        return values
    least = math.ceil(count / limit)
    stride = min(range(least, least + least // 4 + 1), key=lambda distance: math.gcd(distance, count))
    return values[::stride]


def as_floats(values: torch.Tensor) -> NDArray[np.floating[Any]]:
    """Reads a flat tensor on the host as ``float32``, or ``float64`` where it is that, in this thread alone."""
    if values.dtype == torch.bfloat16:
        halves = values.view(torch.int16).numpy().view(np.uint16)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    array = values.numpy()
    if array.dtype == np.float64:
        return array
    return np.asarray(array.real, dtype=np.float32)
