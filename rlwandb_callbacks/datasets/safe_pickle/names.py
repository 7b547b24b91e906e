"""The names in a file that torch saved, without the tensors: they tell weights from data."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rlwandb_callbacks.datasets.safe_pickle.file import ZIP_ERRORS, is_legacy, is_zip, torch_pickle

_MAX_READ_BYTES = 4 * 2**20
_LEGACY_PREFIX = 3  # pickles before that of the object: a magic number, a version, and facts about the machine
_LISTS = ("EMPTY_LIST", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")


def holds_other_names(path: Path, are_wanted: Callable[[set[str]], bool]) -> bool:
    """Returns whether torch saved a dict or an object in a file, and the names in it are not those that are wanted.

    Reads 4 MiB at most. Lists, whose items may have no names, other files and longer pickles are not judged: False.

    Args:
        path: The file.
        are_wanted: Judges all texts of the pickle, the keys of dicts and names of attributes among them.

    Raises:
        OSError: If the file cannot be read.
    """
    texts: set[str] = set()
    try:
        pickled = _pickle_of_torch(path)
        if pickled is None:
            return False
        for index, (name, argument) in enumerate(_operations(pickled)):
            if index == 0 and name in _LISTS:
                return False
            if isinstance(argument, str):
                texts.add(argument)
    except ZIP_ERRORS:  # cut off, longer, or damaged
        return False
    return not are_wanted(texts)


def _operations(pickled: io.BytesIO) -> Iterator[tuple[str, object]]:
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name not in ("PROTO", "FRAME", "MARK"):
            yield operation.name, argument


def _pickle_of_torch(path: Path) -> io.BytesIO | None:
    """Returns the pickle of what torch saved, at most its first bytes, or None if torch did not save it."""
    if is_zip(path):
        with zipfile.ZipFile(path) as archive:
            name = torch_pickle(archive)
            if name is None:
                return None
            with archive.open(name) as member:
                return io.BytesIO(member.read(_MAX_READ_BYTES))
    if not is_legacy(path):
        return None
    with path.open("rb") as file:
        pickled = io.BytesIO(file.read(_MAX_READ_BYTES))
    for _ in range(_LEGACY_PREFIX):
        for _ in pickletools.genops(pickled):
            pass
    return pickled
