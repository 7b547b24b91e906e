"""Keys and values in W&B's records: decoding of items, and nested keys in mappings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from sys import intern
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

_scan_json = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed does not list it
_TYPED = ("integer", "number", "text", "boolean")


def parse_record(record: bytes) -> Any:
    """Returns a serialized record as ``wandb_internal.Record``."""
    return pb.Record.FromString(record)  # type: ignore[attr-defined]  # protobuf creates its classes at run time


def decode_json(text: str) -> Any:
    """Decodes a JSON value, NaN and Infinity too; several times faster than ``json.loads`` for numbers.

    Raises:
        json.JSONDecodeError: If the text is not JSON.
    """
    try:
        return _scan_json(text, 0)[0]
    except StopIteration:  # scan_once raises it for invalid JSON
        return json.loads(text)


def apply_items(tree: dict[str, Any], items: Iterable[Any]) -> dict[str, Any]:
    """Sets the values of items of a history, summary or config; returns the mapping."""
    for item in items:
        path = item.nested_key
        value = decode_json(item.value_json) if item.value_json else _typed_value(item)
        if not path:
            tree[intern(item.key)] = value
        elif len(path) == 1:
            tree[intern(path[0])] = value
        else:
            set_nested(tree, list(path), value)
    return tree


def value_of(items: Iterable[Any], key: str, default: Any) -> Any:
    """Returns the value of a key at the top of items, or ``default``; other items are not decoded."""
    return apply_items({}, [item for item in items if key in (item.key, *item.nested_key[:1])]).get(key, default)


def remove_items(tree: dict[str, Any], items: Iterable[Any]) -> None:
    """Removes the keys of items of a summary or config."""
    for item in items:
        remove_nested(tree, list(item.nested_key) or [item.key])


def set_nested(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Sets a value under a nested key; a value that is no mapping makes place for a longer key.

    Example:
        >>> tree = {"a": 1}
        >>> set_nested(tree, ["a", "b"], 2)
        >>> tree
        {'a': {'b': 2}}
    """
    for key in path[:-1]:
        below = tree.get(key)
        if not isinstance(below, dict):
            below = tree[intern(key)] = {}
        tree = below
    tree[intern(path[-1])] = value


def remove_nested(tree: dict[str, Any], path: list[str]) -> None:
    """Removes a nested key, and the mappings around it that are empty then; a key that is not there is ignored.

    Example:
        >>> tree = {"n": {"p": 1, "q": 2}, "m": {"p": 1}}
        >>> remove_nested(tree, ["n", "p"])
        >>> remove_nested(tree, ["m", "p"])
        >>> tree
        {'n': {'q': 2}}
    """
    key, *rest = path
    below = tree.get(key)
    if rest and isinstance(below, dict):
        remove_nested(below, rest)
        if not below:
            del tree[key]
    elif not rest:
        tree.pop(key, None)


def _typed_value(item: Any) -> Any:
    """Returns the value of a history item that has it in a typed field only; W&B 0.31 may write these beside JSON."""
    fields = {field.name: value for field, value in item.ListFields()}
    if "json" in fields:
        return decode_json(fields["json"])
    return next((fields[name] for name in _TYPED if name in fields), None)
