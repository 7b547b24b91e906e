"""Torch tensors in pickles and in files of ``torch.save``: read by ``torch.load(weights_only=True)``, kept as arrays.

Two things that ``torch.load`` leaves to its caller are done here. Storages of a zip file are mapped from the file
(``mmap``), so that a wrong size in the pickle cannot reach beyond the file; and files of the format before zip are read
from memory, because torch before 2.6 would unpack a tar archive that it finds at a path.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from rlwandb_callbacks.datasets.safe_pickle.arrays import AnyArray, ArrayShell, RefusedError

LEGACY_BEGINNING = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # of what torch saved before its zip format
_MAX_EXPANDED = 2**20


class ForbiddenNameError(pickle.UnpicklingError):
    """The pickle asks for a name that is not on the list.

    Args:
        name: Full name, such as ``posix.system``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"asks for {name}")
        self.name = name


class StorageShell:
    """Holds the numbers of torch tensors out of the reach of the pickle that they are in.

    Args:
        numbers: All numbers of a storage, as a tensor of one axis.
    """

    __slots__ = ("numbers",)

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    def __setstate__(self, state: object) -> None:
        raise RefusedError("a state for a torch storage")


def load_zip(path: Path) -> Any:
    """Reads a zip file of ``torch.save``."""
    return _load(str(path), mmap=True)


def load_legacy(raw: bytes) -> Any:
    """Reads what torch saved before its zip format, and still writes into pickles of single tensors."""
    try:
        return _load(io.BytesIO(raw))
    except AttributeError:
        raise RefusedError(
            "a torch tensor of a dtype, such as uint16, that torch reads only from files of its current torch.save"
        ) from None


def _load(file: Any, **options: Any) -> Any:
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True, **options)
    except (RuntimeError, pickle.UnpicklingError) as error:
        if name := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ForbiddenNameError(name[1]) from None
        # Torch's whole message advises to load the file without this protection.
        problem = re.search(r"WeightsUnpickler error: (.*)", str(error))
        raise pickle.UnpicklingError(problem[1] if problem else str(error).partition("\n")[0]) from None


def storage_from_bytes(raw: object) -> StorageShell:
    """Replaces torch's ``_load_from_bytes``, which would unpickle anything."""
    import torch

    if not isinstance(raw, bytes) or not raw.startswith(LEGACY_BEGINNING):
        raise RefusedError("a torch storage in an unknown format")
    storage = load_legacy(raw)
    if not isinstance(storage, torch.TypedStorage):
        raise RefusedError(f"a {type(storage).__name__} in place of a torch storage")
    return StorageShell(torch.empty(0, dtype=storage.dtype).set_(storage))


def rebuild_tensor(shell: object, offset: Any, size: Any, stride: Any, *_: object) -> ArrayShell:
    """Replaces torch's ``_rebuild_tensor`` and ``_rebuild_tensor_v2``."""
    if not isinstance(shell, StorageShell):
        raise RefusedError("a torch tensor without a storage")
    try:
        return ArrayShell(array_of(shell.numbers.as_strided(size, stride, offset)))
    except RuntimeError:
        raise RefusedError("a torch tensor that reaches beyond its storage") from None


def array_of(tensor: Any) -> AnyArray:
    """Returns a view of a tensor as an array; bfloat16 as float32."""
    import torch

    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise RefusedError("a sparse, quantized or empty torch tensor; allowed are dense tensors with data")
    if tensor.numel() > max(tensor.untyped_storage().nbytes(), _MAX_EXPANDED):
        raise RefusedError("a torch tensor that repeats its numbers: far more than it has room for")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return np.asarray(tensor.float() if tensor.dtype == torch.bfloat16 else tensor)
