"""The error on a folder without Minari's HDF5 file, and the code in it that converts Arrow or Parquet files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlwandb_callbacks.datasets.formats.field_names import listed
from rlwandb_callbacks.datasets.formats.recorded_files import is_recording_folder, recording_conversion
from rlwandb_callbacks.errors import DatasetError

MAIN_FILE = "main_data.hdf5"
_DATA_SUFFIXES = (".h5", ".hdf5", ".npz", ".pkl", ".pickle", ".pt", ".data")

# The last row of each file is padding. Folders are ordered by number; there is one for each episode.
_CONVERSION = """
    from pathlib import Path{imports}
    import pyarrow.dataset
    from rlwandb_callbacks import open_dataset
{definition}
    files = sorted(Path({folder!r}).glob("*/*.{suffix}"), key=lambda file: int(file.parent.name))
    tables = (pyarrow.dataset.dataset(file, format={format!r}).to_table() for file in files)
    open_dataset([{rows} for table in tables]).save("data.npz")
"""
_ROWS = "table.to_pylist()[:-1]"
_CHANGED_ROWS = "[changed(row) for row in table.to_pylist()[:-1]]"
_RESHAPE = """
    def changed(row):
        return row | {{"observations": numpy.reshape(row["observations"], {shape})}}
"""
_DECODE = """
    def changed(value):
        if isinstance(value, dict):
            return {key: changed(inner) for key, inner in value.items() if key != "infos"}
        return numpy.asarray(PIL.Image.open(io.BytesIO(value))) if isinstance(value, bytes) else value
"""
_ARROW_NAMES = {"arrow": "ipc"}  # pyarrow's name of a format
_MIN_JPEG_SIDE = 32  # smaller pictures are stored as they are


def no_data_error(path: Path, folder: Path, metadata: Mapping[str, Any]) -> DatasetError:
    """Returns the error on a folder without Minari's HDF5 file; it says how to convert what is there instead.

    Args:
        path: The folder that was given.
        folder: The one in it that would have the file.
        metadata: What ``metadata.json`` in it holds.
    """
    stored_as = metadata.get("data_format")
    if isinstance(stored_as, str) and stored_as.isidentifier():  # it becomes a part of the code below
        return DatasetError(
            f"{path} is a Minari data set stored as {stored_as}; allowed is hdf5. Convert it with pyarrow, not with "
            f"minari.load_dataset, which cuts episodes of more than 32,767 steps:\n"
            f"{_conversion(folder, metadata)}"
        )
    if is_recording_folder(path):
        return DatasetError(
            f"{path} holds steps that RLlib recorded, in Parquet files. Convert it, if you trust the files, as code in "
            f"them is run:\n{recording_conversion(path)}"
        )
    names = sorted(item.name for item in path.iterdir())
    return DatasetError(
        f"{path} is a folder without data (it contains: {listed(names)}). A folder is read as a Minari data set, "
        f"which has data/{MAIN_FILE}; for other layouts give the path of the file{_example(path, names)}."
    )


def _example(folder: Path, names: list[str]) -> str:
    likely = [name for name in names if Path(name).suffix in _DATA_SUFFIXES]
    return f", such as {folder / likely[0]}" if likely else ""


def _conversion(folder: Path, metadata: Mapping[str, Any]) -> str:
    """Returns code that converts the files: without padding, and with pictures and shapes as they were.

    Args:
        folder: The folder with one folder for each episode.
        metadata: What ``metadata.json`` in it holds; ``data_format`` is an identifier.
    """
    space, stored_as = metadata.get("observation_space"), metadata["data_format"]
    may_hold_jpeg = isinstance(space, str) and "uint8" in space and metadata.get("jpeg_encoding") is not False
    shape = _flattened_shape(space, may_hold_jpeg=may_hold_jpeg)
    imports, definition, rows = "", "", _ROWS
    if shape is not None:
        imports, definition, rows = "\n    import numpy", _RESHAPE.format(shape=shape), _CHANGED_ROWS
    elif may_hold_jpeg:  # at any depth
        imports, definition, rows = "\n    import io, numpy, PIL.Image", _DECODE, _CHANGED_ROWS
    return _CONVERSION.format(
        folder=str(folder),
        imports=imports,
        definition=definition,
        rows=rows,
        suffix=stored_as,
        format=_ARROW_NAMES.get(stored_as, stored_as),
    )


def _flattened_shape(space: Any, *, may_hold_jpeg: bool) -> tuple[int, ...] | None:
    """Returns the shape of observations with several axes, which are stored flat; None for JPEGs and others."""
    try:
        found = json.loads(space)
        shape = tuple(int(side) for side in found["shape"]) if found["type"] == "Box" else ()
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None
    is_jpeg = may_hold_jpeg and min(shape[:2], default=0) >= _MIN_JPEG_SIDE
    return shape if len(shape) > 1 and not is_jpeg else None
