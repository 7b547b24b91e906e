"""A check of the numbers under which a pickle remembers its parts.

Python's unpickler makes its table as long as the largest number says, which may be more than there is memory. Pickles
number their parts consecutively, so that no number can exceed the size of the file.
"""

from __future__ import annotations

import pickletools
import re
from typing import Final

from rlwandb_callbacks.datasets.safe_pickle.arrays import RefusedError

_HARMLESS = 2**24
# Numbers of 2**24 and more: LONG_BINPUT with four bytes, PUT with a decimal number.
_SUSPECT = re.compile(rb"r[\x00-\xff]{3}[^\x00]|p0*[1-9][0-9]{7,}\n")
_LONG_BINPUT, _PUT, _STOP = ord("r"), ord("p"), ord(".")
_LINE, _TWO_LINES = -1, -2
_COUNTED: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def _argument_tables() -> tuple[list[int | None], list[int]]:
    """Returns by operation: fixed size of its argument (None if unknown), and size of the count before a longer one."""
    fixed: list[int | None] = [None] * 256
    counted = [0] * 256
    for operation in pickletools.opcodes:
        code, argument = ord(operation.code), operation.arg
        size = 0 if argument is None else argument.n
        if size >= 0:
            fixed[code] = size
        elif size in _COUNTED:
            fixed[code], counted[code] = _COUNTED[size], _COUNTED[size]
        else:
            fixed[code] = _TWO_LINES if operation.code in "ci" else _LINE
    return fixed, counted


_FIXED, _COUNTS = _argument_tables()


def _short_operations() -> re.Pattern[bytes]:
    """Matches many operations with short arguments at once, and LONG_BINPUT with harmless numbers."""
    by_size: dict[int, list[int]] = {}
    for code, size in enumerate(_FIXED):
        if size is not None and 0 <= size <= 8 and not _COUNTS[code] and code not in (_LONG_BINPUT, _STOP):
            by_size.setdefault(size, []).append(code)
    parts = [b"[%s].{%d}" % (re.escape(bytes(codes)), size) for size, codes in by_size.items()]
    return re.compile(b"(?s:" + b"|".join([*parts, b"r.{3}\x00"]) + b"){1,1000}")


_SHORT = _short_operations()


def check_memo(raw: bytes) -> None:
    """Raises a RefusedError if a pickle numbers one of its parts beyond its own size.

    Args:
        raw: The pickle; it is only walked through if its bytes contain such a number anywhere.
    """
    place, end = 0, len(raw) if _SUSPECT.search(raw) else 0
    while place < end:
        if run := _SHORT.match(raw, place):
            place = run.end()
            continue
        code, place = raw[place], place + 1
        size, count = _FIXED[code], _COUNTS[code]
        if size is None or code == _STOP:
            return  # reading ends here too
        if count:
            place += count + int.from_bytes(raw[place : place + count], "little")
        elif size < 0:
            start, place = place, _after_lines(raw, place, -size)
            if code == _PUT:
                _require_number(raw[start : place - 1], len(raw))
        else:
            if code == _LONG_BINPUT:
                _require_index(int.from_bytes(raw[place : place + 4], "little"), len(raw))
            place += size


def _after_lines(raw: bytes, place: int, count: int) -> int:
    for _ in range(count):
        place = raw.find(b"\n", place) + 1
        if not place:
            return len(raw)
    return place


def _require_number(digits: bytes, size: int) -> None:
    if digits.isdigit():
        _require_index(int(digits[:20]), size)


def _require_index(index: int, size: int) -> None:
    if index >= max(_HARMLESS, size):
        raise RefusedError(f"a part with the number {index:,}, more than it has bytes")
