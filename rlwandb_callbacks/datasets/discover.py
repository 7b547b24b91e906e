"""Finds the data set under a folder that also holds what this package and others write while they train."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.formats.field_names import has_required_fields
from rlwandb_callbacks.datasets.formats.minari import read_metadata
from rlwandb_callbacks.datasets.formats.minari_conversion import MAIN_FILE
from rlwandb_callbacks.datasets.open import open_dataset
from rlwandb_callbacks.datasets.safe_pickle.names import holds_other_names
from rlwandb_callbacks.errors import DatasetError

_CACHED_MAP = re.compile(r"map_[0-9a-f]{32}\.npz")
_SKIPPED_FOLDERS = ("wandb", "lightning_logs", "checkpoints")
# These files hold media, texts or checkpoints. All other files are recognized by their content.
_SKIPPED_SUFFIXES = frozenset(
    (
        ".mp4", ".webm", ".avi", ".gif", ".png", ".jpg", ".jpeg", ".svg", ".pdf", ".html", ".json", ".jsonl", ".txt",
        ".log", ".csv", ".md", ".yaml", ".yml", ".toml", ".py", ".ckpt", ".safetensors", ".onnx",
    )
)  # fmt: skip
_MAX_REASONS = 5


def find_dataset(folder: str, dataset_format: str | None = None) -> OfflineDataset | None:
    """Returns the data set under a folder, at any depth; None if there is none.

    Videos, pictures, cached maps, runs, checkpoints and hidden files do not count, and links to folders are not
    followed.

    Args:
        folder: The folder; it need not exist.
        dataset_format: Layout that the data must have; by default any known one.

    Raises:
        DatasetError: If there are several.
    """
    found = [item for item in _open_all(folder, dataset_format) if isinstance(item, OfflineDataset)]
    if len(found) > 1:
        raise DatasetError(
            f"{len(found)} data sets lie under {folder}: {', '.join(sorted(data.name for data in found))}. Set "
            "dataset_path to one of them."
        )
    return found[0] if found else None


def no_dataset(folder: str, dataset_format: str | None = None) -> str:
    """Returns a warning that there is no data set under a folder, with the reasons why files there are none."""
    reasons = [str(item) for item in _open_all(folder, dataset_format) if not isinstance(item, OfflineDataset)]
    looked = f" Not readable: {' '.join(reasons[:_MAX_REASONS])}" if reasons else ""
    return (
        f"vis_dataset is True, and no offline data were found under {folder}, so that they are not drawn. Set "
        f"dataset_path to a file or folder of offline data, or put it there.{looked}"
    )


def _open_all(folder: str, dataset_format: str | None) -> Iterator[OfflineDataset | Exception]:
    """Opens all files that may be data sets; yields the error of those that are not."""
    for path in _candidates(folder):
        yield _open(path, dataset_format)


def _open(path: Path, dataset_format: str | None) -> OfflineDataset | Exception:
    try:
        if path.is_file() and holds_other_names(path, has_required_fields):
            return DatasetError(f"{path} has no observations, actions and rewards, as weights have not.")
        return open_dataset(path, dataset_format)
    except (DatasetError, OSError) as error:
        return error


def _candidates(folder: str) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        for name in sorted(files):
            path = Path(root, name)
            is_skipped = name.startswith(".") or _CACHED_MAP.fullmatch(name) or path.suffix.lower() in _SKIPPED_SUFFIXES
            if not is_skipped and path.is_file() and path.stat().st_size:
                yield path
        if (
            "metadata.json" in files
            and MAIN_FILE not in files
            and "data_format" in read_metadata(Path(root, "metadata.json"))
        ):
            folders.clear()  # its Arrow or Parquet files are not read, and the error of the folder tells how to
            yield Path(root)
