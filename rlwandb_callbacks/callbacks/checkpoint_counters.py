"""Counters in a checkpoint file, for evaluations of its weights: Lightning restores callbacks only for a fit."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import fsspec  # a requirement of Lightning
from typing_extensions import Self

PREFIX = "rlwandb_callbacks."  # of the keys of our callbacks


def read_counters(path: str) -> dict[str, float]:
    """Returns the counters that a checkpoint file holds, as :meth:`Counters.state` returns them.

    A checkpoint of a training without our callbacks has Lightning's own counts. Tensors are not read, and nothing that
    the file names is called.

    Args:
        path: Path or URL of a file that Lightning has written.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a file of ``torch.save``, or not a checkpoint.
    """
    with fsspec.open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(name) as pickled:
                    checkpoint = _PlainUnpickler(pickled).load()
        except (zipfile.BadZipFile, StopIteration, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is not a checkpoint that torch.save has written: {error}") from error
    if not isinstance(checkpoint, Mapping) or "global_step" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of a Trainer: it has no 'global_step'.")
    return {**_counters_of_lightning(checkpoint), **next(_own_counters(checkpoint.get("callbacks")), {})}


class _Placeholder:
    """Stands for any object that is not plain data."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> _Placeholder:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def add(self, item: Any) -> None: ...


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain numbers, text and containers; everything else becomes a placeholder."""

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _Placeholder

    def persistent_load(self, _: Any) -> _Placeholder:
        return _Placeholder()


def _own_counters(states: Any) -> Iterator[dict[str, float]]:
    """Yields the counters of each of our callbacks; a group holds the states of its parts."""
    for key, state in states.items() if isinstance(states, Mapping) else ():
        if isinstance(key, str) and key.startswith(PREFIX) and isinstance(state, Mapping):
            if "updates" in state:
                yield {name: value for name, value in state.items() if isinstance(value, int | float)}
            yield from _own_counters(state)


def _counters_of_lightning(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """Returns the step that Lightning's loggers had at the latest batch.

    Lightning counts that batch before or after it saves a checkpoint, which the number of optimizer steps tells for one
    optimizer.
    """
    loops = checkpoint.get("loops") or {}
    epoch_loop = loops.get("fit_loop", {}).get("epoch_loop.state_dict", {})
    optimizer_steps = int(checkpoint["global_step"])
    step = max(0, min(int(epoch_loop.get("_batches_that_stepped", optimizer_steps)), optimizer_steps - 1))
    return {"updates": step + 1, "global_step": step} if optimizer_steps else {"updates": 0, "global_step": 0}
