"""Limits on data files: only regular files are opened, and no array of one takes far more memory than it has room for.

A short file can declare any number of rows, or compress a thousand zeros to one byte. Recorded data are far below these
limits; what exceeds them is refused before it is read.
"""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from pathlib import Path

from rlwandb_callbacks.errors import DatasetError

MAX_ROW_BYTES = 64 * 2**20
FREE_ROWS = 2**23
FREE_MEMORY_BYTES = 256 * 2**20
MEMORY_PER_FILE_BYTE = 16
_FREE_ARRAY_BYTES = 2 * 2**30
_MAX_COMPRESSION = 500  # zlib reaches 1,032 for zeros
_KINDS = (
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def require_regular_file(path: Path) -> None:
    """Raises an error unless a path is a regular file, or a link to one; reading others may wait or never end.

    Raises:
        DatasetError: If it is a pipe, a socket, a device or a folder.
        OSError: If it does not exist, or its folder may not be read.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a folder")
    raise DatasetError(f"{path} is {kind}; allowed is a regular file. Save the data to a file and give its path.")


def require_regular_or_missing(path: Path) -> None:
    """Raises a DatasetError if a path exists and is not a regular file."""
    if path.exists():
        require_regular_file(path)


@dataclass(frozen=True, kw_only=True)
class FileLimits:
    """Limits on the arrays of one file.

    Args:
        path: The file, in messages.
        file_bytes: Its size.
    """

    path: str
    file_bytes: int

    @classmethod
    def of(cls, path: str | Path) -> FileLimits:
        """Returns the limits of a file."""
        return cls(path=str(path), file_bytes=Path(path).stat().st_size)

    @property
    def memory_bytes(self) -> int:
        """Bytes that a part of the file that can only be read whole may take: 256 MiB, or 16 times the file."""
        return max(FREE_MEMORY_BYTES, MEMORY_PER_FILE_BYTE * self.file_bytes)

    def check_rows(self, name: str, rows: int) -> None:
        """Raises a DatasetError for more rows than 8,388,608 and than the file has bytes."""
        if rows > max(FREE_ROWS, self.file_bytes):
            raise DatasetError(
                f"{self.path}: {name} declares {rows:,} rows, in a file of {self.file_bytes:,} bytes: fewer than one "
                "byte a row. Save only the rows that were written."
            )

    def check_array(self, name: str, shape: tuple[int, ...], item_bytes: int, stored_bytes: int | None = None) -> None:
        """Checks the size that an array declares.

        Args:
            name: Name of the array.
            shape: Shape of the array, ``(N, ...)``.
            item_bytes: Size of one number.
            stored_bytes: Size of its compressed data in the file; by default that of the file.

        Raises:
            DatasetError: If it has far more rows or bytes than are stored, or its rows are larger than 64 MiB.
        """
        if not shape:
            return
        self.check_rows(name, shape[0])
        row_bytes = math.prod(shape[1:]) * item_bytes
        if row_bytes > MAX_ROW_BYTES:
            raise DatasetError(
                f"{self.path}: {name} has shape {shape}: a row takes {row_bytes / 2**20:,.0f} MiB; allowed are rows of "
                f"at most {MAX_ROW_BYTES // 2**20} MiB. Save smaller observations and actions."
            )
        stored = self.file_bytes if stored_bytes is None else stored_bytes
        if shape[0] * row_bytes > max(_FREE_ARRAY_BYTES, _MAX_COMPRESSION * stored):
            raise DatasetError(
                f"{self.path}: {name} has shape {shape}, which are {shape[0] * row_bytes / 2**30:,.1f} GiB made of "
                f"{stored:,} bytes in the file; allowed is up to {_MAX_COMPRESSION} times as much. Save only the rows "
                "that were written."
            )

    def check_memory(self, name: str, size: int, remedy: str) -> None:
        """Raises a DatasetError if a part of the file that can only be read whole takes too much memory."""
        if size > self.memory_bytes:
            raise DatasetError(
                f"{self.path}: {name} can only be read in parts of {size / 2**20:,.0f} MiB; allowed are "
                f"{self.memory_bytes / 2**20:,.0f} MiB for a file of {self.file_bytes:,} bytes. {remedy}"
            )
