"""Framing of W&B's run files (``run-<id>.wandb``).

A file is a log in LevelDB's format: blocks of 32 KiB, and records with a seven-byte header of checksum, length and
type. A record that does not fit into its block is split. Each record is one serialized ``wandb_internal.Record``.
The checksum is the CRC-32 of type and content.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Container, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

MAGIC = b":W&B"
HEADER_BYTES = 7
BLOCK_BYTES = 32 * 1024
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
_BEGINNINGS = (WHOLE, FIRST)

HISTORY, SUMMARY, RUN = 2, 3, 17
"""Field numbers in ``wandb_internal.Record`` of a row of the history, of changes of the summary and of a run."""
DAMAGED = -1
"""Stands for the type of a record with a wrong checksum or header."""
_OTHER_TYPES = {5, 6, 10, 12, RUN, 18}  # config, files, alert, metric, run, exit

_NUM, _CONTROL, _UUID, _INFO = 1, 16, 19, 200
_NO_CONTENT = {_NUM, _CONTROL, _UUID, _INFO}
_VARINT, _FIXED64, _BYTES = 0, 1, 2
_NUM_TAG, _CONTINUED = 0x08, 0x80
_unpack_header = struct.Struct("<IHB").unpack_from


class Record(NamedTuple):
    """A serialized record, the offsets of its start and end in the file, and the field number of its content.

    The type is ``DAMAGED`` and the content empty where a checksum or header is wrong.
    """

    start: int
    end: int
    type: int
    content: bytes


class RecordLog:
    """Records of a run file, read block by block.

    Later passes read only what was in the file at the last :meth:`read_new`, so that they agree with each other while
    the run goes on. Rows of the history are found again by their offsets, eight bytes a row.

    Args:
        path: The ``.wandb`` file.

    Raises:
        ValueError: If the file is not a W&B run file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_on_at = HEADER_BYTES
        self._size = 0
        self._rows = array("Q")
        self._damaged: list[int] = []
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        if not MAGIC.startswith(start):  # W&B creates an empty file first
            raise ValueError(f"{path} is not a W&B run file: it does not start with {MAGIC!r}.")

    @property
    def damaged_places(self) -> int:
        """Number of places with a wrong checksum or header, each of which costs one record or the rest of a block."""
        return len(self._damaged)

    def read_new(self) -> list[bytes]:
        """Reads on from the end of the last call; returns the new records, without those of history and summary."""
        others = []
        with self.path.open("rb") as file:
            self._size = self.path.stat().st_size
            # what is behind the last complete record is read again: it may have been complete in part only
            self._damaged = [place for place in self._damaged if place < self._read_on_at]
            for record in read_records(file, self._read_on_at, self._size, {HISTORY, DAMAGED, *_OTHER_TYPES}):
                if record.type == DAMAGED:
                    self._damaged.append(record.start)
                    continue
                self._read_on_at = record.end
                if record.type == HISTORY:
                    self._rows.append(record.start)
                else:
                    others.append(record.content)
        return others

    def rows(self) -> Iterator[bytes]:
        """Yields the records with rows of the history.

        Raises:
            ValueError: If the file is shorter than it was.
        """
        with self._open() as file:
            yield from _records_at(file, self._rows, self._size)

    def summaries(self, *, before_first_row: bool = False) -> Iterator[bytes]:
        """Yields the records with changes of the summary, of the whole file or of what precedes the first row."""
        stop = self._rows[0] if before_first_row and self._rows else self._size
        with self._open() as file:
            for record in read_records(file, HEADER_BYTES, stop, {SUMMARY}):
                yield record.content

    def _open(self) -> BinaryIO:
        size = self.path.stat().st_size
        if size < self._size:
            raise ValueError(
                f"{self.path} has {size} bytes, but had {self._size} when it was read; read the run again."
            )
        return self.path.open("rb")


def read_records(file: BinaryIO, position: int, stop: int, types: Container[int]) -> Iterator[Record]:
    """Yields the complete records of some types between two offsets.

    A record that is cut off at the end of the file is left out. A damaged record is left out, and with a damaged header
    the rest of its block; ``DAMAGED`` is yielded there if it is one of the types.
    """
    parts: list[bytes] = []
    first = position
    file.seek(position)
    while position < stop and (block := file.read(min(BLOCK_BYTES - position % BLOCK_BYTES, stop - position))):
        end, size = 0, len(block)
        while end + HEADER_BYTES <= size:
            begin = end
            checksum, length, kind = _unpack_header(block, begin)
            start = begin + HEADER_BYTES
            end = start + length
            if not WHOLE <= kind <= LAST or end > size:
                parts.clear()
                is_cut_off = position + size >= stop and _may_be_cut_off(position + begin, length, kind)
                if not is_cut_off and DAMAGED in types:
                    yield Record(position + begin, position + size, DAMAGED, b"")
                break
            if kind in _BEGINNINGS:
                first = position + begin
                parts.clear()
            if checksum and crc32(block[start - 1 : end]) != checksum:  # 0: written without checksums
                parts.clear()
                first, type_, content = position + begin, DAMAGED, b""
            else:
                part = block[start:end]
                complete = part if kind == WHOLE else _join(parts, part, kind)
                if complete is None:
                    continue
                type_, content = record_type(complete, 0, len(complete)), complete
            if type_ in types:
                yield Record(first, position + end, type_, content)
        position += size


def _may_be_cut_off(offset: int, length: int, kind: int) -> bool:
    """Returns whether a header at the end of the file fits into its block, or is one of zeros, which is not written."""
    if kind == 0:
        return length == 0
    return kind <= LAST and offset % BLOCK_BYTES + HEADER_BYTES + length <= BLOCK_BYTES


def _join(parts: list[bytes], part: bytes, kind: int) -> bytes | None:
    """Adds a part of a split record, which may be empty; returns the record if it is complete."""
    if kind != FIRST and not parts:  # the beginning is damaged
        return None
    parts.append(part)
    return b"".join(parts) if kind == LAST else None


def _records_at(file: BinaryIO, offsets: Iterable[int], stop: int) -> Iterator[bytes]:
    """Yields the records that begin at some offsets, which rise."""
    block, block_start = b"", -BLOCK_BYTES
    for offset in offsets:
        begin = offset - block_start
        if begin >= BLOCK_BYTES:
            begin = offset % BLOCK_BYTES
            block_start = offset - begin
            file.seek(block_start)
            block = file.read(BLOCK_BYTES)
        _, length, kind = _unpack_header(block, begin)
        if kind == WHOLE:
            start = begin + HEADER_BYTES
            yield block[start : start + length]
        else:
            for record in islice(read_records(file, offset, stop, {HISTORY}), 1):
                yield record.content


def record_type(data: bytes, position: int, end: int) -> int:
    """Returns the field number of the content of a serialized record, without parsing the content; 0 for none.

    The field that holds the content names its type. The few fields that every record can have may precede it.
    """
    try:
        if data[position] == _NUM_TAG:  # most records: a number, then the content
            after = position + 1
            while data[after] >= _CONTINUED:
                after += 1
            if data[after + 1] < _CONTINUED:
                return data[after + 1] >> 3
        while position < end:
            tag, position = _read_varint(data, position)
            if tag >> 3 not in _NO_CONTENT:
                return tag >> 3
            value, after = _read_varint(data, position)
            match tag & 7:
                case 0:
                    position = after
                case 1:
                    position += 8
                case 2:
                    position = after + value
                case _:
                    position += 4
    except IndexError:  # an empty or damaged record
        return 0
    return 0


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Reads protobuf's variable-length integer; returns it and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < _CONTINUED:
            return value, position
        shift += 7
