"""Values that HDF5 reads as zeros because they are missing: in virtual data sets, and in chunks never written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ONE_FILE = (
    'Copy its values to a file of their own, if you trust it: with h5py.File("old.h5") as old, '
    'h5py.File("new.h5", "w") as new: new[name] = old[name][()], for each array.'
)
_MAX_NAMED = 5


class RefusedItemError(ValueError):
    """An item of the file is not read; the message is the predicate of a sentence on it."""


def require_one_file(dataset: Any) -> None:
    """Refuses a virtual data set whose values come from other files; those that are missing are named.

    Args:
        dataset: An ``h5py.Dataset`` that is virtual. Nothing of other files is read.
    """
    parts = dataset.virtual_sources()
    names = list(dict.fromkeys(part.file_name for part in parts if part.file_name != "." or "%" in part.dset_name))
    if not names:
        return
    folder = Path(dataset.file.filename).absolute().parent
    if missing := [name for name in names if "%" not in name and not _exists(folder, name)]:
        raise RefusedItemError(
            f"is a virtual data set made of other files, of which {_listed(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} missing in {folder}. HDF5 reads what is missing as zeros, without "
            f"an error. Put all files there first. {ONE_FILE}"
        )
    other = "another file" if len(names) == 1 else "other files"
    raise RefusedItemError(
        f"is a virtual data set made of {other}, {_listed(names)}, which {'is' if len(names) == 1 else 'are'} not read."
        f" {ONE_FILE} HDF5 reads what is missing in them as zeros, without an error: compare the copy with them."
    )


def _exists(folder: Path, name: str) -> bool:
    """Returns whether a source is there, where HDF5 looks for it: at its path, or beside the virtual file."""
    try:
        return (folder / name).exists() or (folder / Path(name).name).exists()
    except (OSError, ValueError):
        return False


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + ", …" * (len(names) > _MAX_NAMED)


def require_whole(dataset: Any, parts: Sequence[Any], sources: Mapping[str, Any]) -> None:
    """Refuses a virtual data set in which values have no source: HDF5 reads them as zeros, without an error.

    Args:
        dataset: An ``h5py.Dataset`` that is virtual.
        parts: Its ``virtual_sources()``, all in the same file.
        sources: The ``h5py.Dataset`` of each name among them.
    """
    mapped = [part.vspace.get_select_npoints() for part in parts]
    if any(count < 0 for count in mapped):
        return  # unlimited
    total = math.prod(dataset.shape)
    if sum(mapped) < total:
        raise RefusedItemError(
            f"is a virtual data set of {total:,} numbers, of which {total - sum(mapped):,} have no source: HDF5 reads "
            "them as zeros, without an error. Make it of the rows that exist only"
        )
    for part, count in zip(parts, mapped, strict=True):
        if count > (available := math.prod(sources[part.dset_name].shape)):
            raise RefusedItemError(
                f"is a virtual data set that takes {count:,} numbers from {part.dset_name}, which has {available:,}: "
                "HDF5 reads the others as zeros, without an error. Make it of the rows that exist only"
            )


def gap_warning(dataset: Any) -> str:
    """Returns a sentence on rows that were never written although later rows were; empty if there are none.

    Args:
        dataset: An ``h5py.Dataset``. Values are not read.
    """
    if not dataset.chunks or not dataset.size or not hasattr(dataset.id, "chunk_iter"):
        return ""
    per_row = [math.ceil(size / side) for size, side in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() >= math.prod(per_row):
        return ""
    height, written = dataset.chunks[0], set[int]()
    dataset.id.chunk_iter(lambda chunk: written.add(chunk.chunk_offset[0] // height))
    gaps = sorted(set(range(max(written, default=0))) - written)
    if not gaps:
        return ""  # what was not written at the end is looked for in the values
    return (
        f"{len(gaps) * height:,} rows of {dataset.name}, from row {gaps[0] * height:,} on, were never written, "
        "although later rows were: HDF5 reads them as its fill value, such as 0. They count as steps. Leave them out, "
        "or save valids beside them: 0 for these rows, else 1."
    )
