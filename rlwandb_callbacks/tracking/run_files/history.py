"""Rows and columns of the history in run files, read without parsing what was not asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rlwandb_callbacks.tracking.run_files.items import apply_items, decode_json, parse_record, value_of

ABSENT: Any = object()
"""Stands for a key that a row does not have; None is a value that W&B stores."""

_KEY, _NESTED_KEY, _VALUE_JSON = b"\x0a", b"\x12", b"\x82\x01"
_ITEM = 0x0A
_ONE_BYTE = 0x80


def history_rows(records: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yields the rows of the history, decoded as a whole."""
    for record in records:
        yield apply_items({}, parse_record(record).history.item)


def history_values(records: Iterable[bytes], keys: Iterable[str]) -> Iterator[list[Any]]:
    """Yields for each row of the history the values of some keys, or ``ABSENT``; other keys are not decoded."""
    finders = [_value_finder(key) for key in keys]
    for record in records:
        yield [find(record) for find in finders]


def history_numbers(records: Iterable[bytes], keys: Iterable[str]) -> Iterator[list[float]]:
    """Yields for each row of the history the numbers of some keys as floats, or ``ABSENT``, also for other values.

    Integers beyond the range of float64 become infinite.
    """
    finders = [_value_finder(key, number_of_json, number_of) for key in keys]
    for record in records:
        yield [find(record) for find in finders]


def number_of_json(text: bytes) -> Any:
    """Returns a number in JSON as a float, and ``ABSENT`` for other values."""
    try:
        return float(text)  # takes NaN and Infinity too, and no text in quotes
    except ValueError:
        return ABSENT


def number_of(value: Any) -> Any:
    """Returns a number as a float, and ``ABSENT`` for other values, such as bools."""
    if type(value) not in (float, int):
        return ABSENT
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _value_of_json(text: bytes) -> Any:
    return decode_json(text.decode())


def _same(value: Any) -> Any:
    return value


def _value_finder(
    key: str, from_json: Callable[[bytes], Any] = _value_of_json, convert: Callable[[Any], Any] = _same
) -> Callable[[bytes], Any]:
    """Makes a function that returns the value of a key at the top of a serialized row, or ``ABSENT``.

    The bytes of the key are looked for first, which is most of the work for rows without the key. A plain value stands
    directly behind them in an item of known length. Anything else (mappings, long values, other encodings) is parsed.
    """
    name = key.encode(errors="replace")
    plain, nested = (field + _varint(len(name)) + name for field in (_KEY, _NESTED_KEY))
    with_value = nested + _VALUE_JSON
    offset = len(with_value) + 1

    def find(row: bytes) -> Any:
        start = row.find(with_value)
        if start >= 0:
            begin = start + offset
            end = begin + row[begin - 1]
            if row[start - 1] == end - start < _ONE_BYTE and row[start - 2] == _ITEM:
                return from_json(row[begin:end])
        elif nested not in row and plain not in row:
            return ABSENT
        return convert(value_of(parse_record(row).history.item, key, ABSENT))

    return find


def _varint(number: int) -> bytes:
    """Encodes an integer ≥ 0 as protobuf does."""
    encoded = bytearray()
    while number >= _ONE_BYTE:
        encoded.append(number & 0x7F | _ONE_BYTE)
        number >>= 7
    return bytes([*encoded, number])
