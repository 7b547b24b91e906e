"""Data sets in which nothing but zeros was written."""

from __future__ import annotations

from pathlib import Path

from rlwandb_callbacks.datasets.columns import spans
from rlwandb_callbacks.datasets.reader import DatasetReader

_TORCHRL_NAME = "MinariExperienceReplay"
_TORCHRL_FILES = ("meta.json", "env_metadata.json")


def holds_only_zeros(reader: DatasetReader) -> bool:
    """Returns whether all rewards, actions and observations are 0; reads rows up to the first other number."""
    # In this order, and from the first row on, so that large chunks of observations are rarely read twice.
    columns = (reader.rewards, reader.actions, reader.observations)
    return not any(block.any() for column in columns for block in spans(column))


def zeros_warning(name: str) -> str:
    """Returns that a data set holds only zeros, and what is known to write such data.

    Args:
        name: Path or name of the data set.
    """
    text = "All observations, actions and rewards are 0: the data were probably never written, or were lost."
    if _TORCHRL_NAME in name or all(Path(name, file).is_file() for file in _TORCHRL_FILES):
        return (
            f"{text} {_TORCHRL_NAME} of torchrl (0.14.1) fills its buffer and its folder with zeros. Give the Minari "
            "data set itself, by its id or the path of its folder."
        )
    return text
