"""Converts values to what ``run.log`` takes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from typing_extensions import assert_never

from rlwandb_callbacks.core.values import Histogram, Html, Image, Scalar, Table, Value, Video


def split_files(values: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """Returns the values that a row holds itself, and those that become files beside it."""
    held: dict[str, Value] = {k: value for k, value in values.items() if isinstance(value, Scalar | Histogram)}
    return held, {key: value for key, value in values.items() if key not in held}


def rows_of_files(files: Mapping[str, Value]) -> list[dict[str, Value]]:
    """Returns the rows that files take: W&B's file of a table holds 10,000 rows, and cuts off the rest.

    All else of a longer table would be in an artifact alone, outside the folder of the run: it is lost, without a word,
    if that folder is moved to another machine and sent from there.
    """
    parts: list[dict[str, Value]] = []
    for key, value in files.items():
        for number, part in enumerate(_parts_of(value)):
            parts += [{}] if number == len(parts) else []
            parts[number][key] = part
    return parts


def _parts_of(value: Value) -> list[Value]:
    length = wandb.Table.MAX_ROWS
    if not isinstance(value, Table) or len(value.rows) <= length:
        return [value]
    starts = range(0, len(value.rows), length)
    return [Table(value.columns, value.rows[start : start + length]) for start in starts]


def to_wandb(value: Value) -> Any:
    """Converts a value for ``run.log``."""
    match value:
        case Scalar(value=number):
            return float(number)
        case Histogram(counts=counts, edges=edges):
            return wandb.Histogram(np_histogram=(counts.tolist(), np.asarray(edges).tolist()))
        case Image(pixels=pixels, caption=caption):
            return wandb.Image(pixels, caption=caption)
        case Video(path=path, caption=caption):
            return wandb.Video(path, caption=caption, format="mp4")
        case Table(columns=columns, rows=rows):
            return wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
        case Html(text=text):
            return wandb.Html(text, inject=False)
        case _:
            assert_never(value)


def store(run: Any, key: str, value: Value, *, step: int) -> Any:
    """Writes the file of a value into the folder of a run; returns the entry of the row that names the file.

    ``run.log`` would do the same for all files of a row at once, so that an error of one would cost the whole row. For
    a table it would also make an artifact, which takes ten requests and waits for W&B's server. A table has no more
    rows than such a file may hold; see :func:`rows_of_files`.

    Args:
        run: An open run.
        key: Key of the value.
        value: A value that becomes a file.
        step: Number in the name of the file, ≥ 0.
    """
    _restore_staging_folder()
    converted = to_wandb(value)
    converted.bind_to_run(run, key, step)
    return converted.to_json(run)


def _restore_staging_folder() -> None:
    """Makes W&B's folder for files that it has not moved yet again, if a cleaner of temporary files removed it."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # not public; W&B's own error says more
        from wandb.sdk.data_types._private import MEDIA_TMP

        Path(MEDIA_TMP.name).mkdir(mode=0o700, parents=True, exist_ok=True)
