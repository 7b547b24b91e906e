"""Opens HDF5 files, also those that were not closed by the process that wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlwandb_callbacks.errors import DatasetError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION_WITH_FLAGS = 3  # of the superblock
_VERSION_BYTE, _FLAGS_BYTE = 8, 11
_OPEN_FOR_WRITING, _OPEN_FOR_SWMR = 1, 4


def is_hdf5(path: Path) -> bool:
    """Returns whether a file has HDF5's signature, at its beginning or after a user block."""
    return bool(_superblock(path))


def _superblock(path: Path) -> bytes:
    """Returns the first bytes of the superblock; nothing if there is none."""
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            found = file.read(_FLAGS_BYTE + 1)
            if found.startswith(_SIGNATURE):
                return found
            offset = max(512, 2 * offset)
    return b""


@dataclass(frozen=True, kw_only=True)
class OpenedFile:
    """A file that is open for reading.

    Args:
        file: An ``h5py.File``.
        is_unclosed: Whether its writer was stopped before it closed the file, or still has it open.
    """

    file: Any
    is_unclosed: bool


def open_file(path: str) -> OpenedFile:
    """Opens a file for reading.

    HDF5 refuses files whose writer has not closed them. What was flushed in SWMR mode (single writer, multiple readers)
    can be read nevertheless.

    Raises:
        DatasetError: If it is not an HDF5 file, is damaged, or is open for writing.
    """
    import h5py

    block = _superblock(Path(path))
    has_flags = len(block) > _FLAGS_BYTE and block[_VERSION_BYTE] >= _VERSION_WITH_FLAGS
    flags = block[_FLAGS_BYTE] if has_flags else 0
    try:
        return OpenedFile(file=h5py.File(path, "r"), is_unclosed=bool(flags & _OPEN_FOR_WRITING))
    except OSError as error:
        if flags & _OPEN_FOR_SWMR:
            try:
                return OpenedFile(file=h5py.File(path, "r", swmr=True), is_unclosed=True)
            except OSError as second:
                raise _not_opened(path, block, 0, second) from second
        raise _not_opened(path, block, flags, error) from error


def _not_opened(path: str, block: bytes, flags: int, error: OSError) -> DatasetError:
    if isinstance(error, BlockingIOError):
        return DatasetError(f"{path} is locked: another process has it open for writing. Close it there ({error}).")
    if flags & _OPEN_FOR_WRITING:
        return DatasetError(
            f"{path} is marked as open for writing: its writer was stopped before it closed the file, or still has it "
            "open, and did not write in SWMR mode, in which the file could be read. Close it there. If the writer is "
            "gone, copy the file, run h5clear -s on the copy, and check what it holds."
        )
    problem = "is cut off or damaged" if block else "is not an HDF5 file"
    return DatasetError(f"{path} {problem} ({error}). Copy or create it again.")
