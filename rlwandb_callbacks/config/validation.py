"""Checks of values that a user wrote, with messages that name the field, the value and what is allowed."""

from __future__ import annotations

import numbers
import types
import typing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from rlwandb_callbacks.errors import ConfigError, nearest

# What an environment, a spec, a parallel environment of PettingZoo, or a trained agent has that cannot be called.
MAKES_OR_ACTS = ("spec", "possible_agents", "predict")


def field_types(cls: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, each with its annotation as types."""
    return typing.get_type_hints(cls)


def check_types(section: Any) -> None:
    """Checks each field of a dataclass against its annotation.

    Raises:
        ConfigError: Naming the field, its value and what is allowed.
    """
    for name, hint in field_types(type(section)).items():
        value = getattr(section, name)
        if not _fits(value, hint):
            raise ConfigError(f"{_full_name(section, name)} is {value!r}; allowed is {_in_words(hint)}.")


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is Callable:
        return callable(value) or any(hasattr(value, name) for name in MAKES_OR_ACTS)
    if origin in (list, dict):
        item_hint = typing.get_args(hint)[-1]
        items = value.values() if isinstance(value, dict) else value
        return isinstance(value, origin) and all(_fits(item, item_hint) for item in items)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    return isinstance(value, type(None) if hint is None else hint)


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_in_words(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"a list of {_in_words(typing.get_args(hint)[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing (null)"}
    origins = {
        dict: "a mapping",
        Callable: "a callable",
        Executor: "a concurrent.futures.Executor",
    }
    return names.get(hint) or origins.get(typing.get_origin(hint) or hint) or str(hint)


def _full_name(section: Any, name: str) -> str:
    return f"{section.key_prefix}{name}"


def require(section: Any, name: str, allowed: Callable[[Any], bool], in_words: str) -> None:
    """Raises a ConfigError unless ``allowed`` holds for a field; ``in_words`` says what is allowed."""
    value = getattr(section, name)
    if not allowed(value):
        raise ConfigError(f"{_full_name(section, name)} is {value!r}; allowed is {in_words}.")


def require_one_of(section: Any, name: str, allowed: Sequence[Any]) -> None:
    """Raises a ConfigError unless a field is one of ``allowed``."""
    value = getattr(section, name)
    if value not in allowed:
        options = ", ".join("null" if option is None else repr(option) for option in allowed)
        raise ConfigError(
            f"{_full_name(section, name)} is {value!r}; allowed are {options}."
            f"{nearest(str(value), [str(option) for option in allowed])}"
        )


def path_text(path: Any) -> Any:
    """The text of a path; anything else as it is."""
    return path.__fspath__() if hasattr(path, "__fspath__") else path
