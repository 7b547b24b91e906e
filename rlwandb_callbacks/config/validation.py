"""Checks settings against the annotations of their fields: types, ranges and names that are allowed."""

from __future__ import annotations

import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Annotated, Any

from rlwandb_callbacks.core.acting_methods import ACTING_METHODS
from rlwandb_callbacks.errors import ConfigError, nearest

# An environment, a PettingZoo environment or an agent has one of these attributes and is not callable.
ENV_OR_AGENT_ATTRIBUTES = ("spec", "possible_agents", *ACTING_METHODS)
TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    type(None): "null",
    dict: "a mapping",
    Callable: "a callable",
    Executor: "a concurrent.futures.Executor",
}


@dataclass(frozen=True)
class Bounds:
    """Range of a number, as metadata of an ``Annotated`` type.

    Example:
        >>> bounds = Bounds(gt=0, le=1)
        >>> str(bounds), bounds.allows(0), bounds.allows(1)
        ('> 0 and ≤ 1', False, True)
    """

    ge: float | None = None  # ≥
    gt: float | None = None  # >
    le: float | None = None  # ≤
    lt: float | None = None  # <

    def allows(self, value: float) -> bool:
        """Returns whether a number is in the range; NaN never is."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        if (self.gt, self.lt) == (-math.inf, math.inf):
            return "that is finite"
        limits = {"≥": self.ge, ">": self.gt, "≤": self.le, "<": self.lt}
        return " and ".join(f"{sign} {limit:,}" for sign, limit in limits.items() if limit is not None)


class OneOf:
    """Allowed names, as metadata of an ``Annotated`` type.

    ``Literal`` would be checked by jsonargparse first, whose message suggests no name.
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def allows(self, value: str) -> bool:
        """Returns whether a name is allowed."""
        return value in self.names


@dataclass(frozen=True)
class Declared:
    """Type of a field whose annotation is another one, as metadata of an ``Annotated`` type."""

    hint: Any


def widened(hint: Any, *, read_as: Any = Any) -> Any:
    """Returns an annotation that OmegaConf and Hydra take for ``read_as``, and that is checked as the type ``hint``.

    OmegaConf knows no unions with callables or dataclasses. The type itself stands beside it under ``TYPE_CHECKING``,
    where type checkers and newer versions of jsonargparse (4.53, not 4.32) read it.
    """
    return Annotated[read_as, Declared(hint)]


PositiveInt = Annotated[int, Bounds(ge=1)]
NonNegativeInt = Annotated[int, Bounds(ge=0)]
MAX_SEED = 2**32 - 1  # of NumPy's random numbers, which environments and scikit-learn seed
Seed = Annotated[int, Bounds(ge=0, le=MAX_SEED)]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Base class of all settings; checks every field when an instance is created.

    Args:
        key: Key of the section in the config, as a keyword of the subclass; the root has none.
        replaced: Advice for each key of an earlier version: a sentence after a space. A keyword of the subclass too.

    Raises:
        ConfigError: If a field has a wrong value. The message names the field, the value and what is allowed.
    """

    _key_prefix = ""
    _replaced = MappingProxyType(dict[str, str]())

    def __init_subclass__(cls, key: str = "", replaced: Mapping[str, str] | None = None) -> None:
        cls._replaced = MappingProxyType(dict(replaced or {}))
        if key:
            cls._key_prefix = f"{key}."

    def __post_init__(self) -> None:
        for name, hint in field_types(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, hint):
                *others, last = options = _options(hint)
                allowed = f"{', '.join(others)} or {last}" if others else last
                names = re.findall(r"'(.*?)'", " ".join(options))
                items = map(str, value if isinstance(value, list) else [value])
                advice = next((nearest(item, names) for item in items if item not in names), "")
                raise ConfigError(f"{self._key_prefix}{name} is {value!r}; it must be {allowed}.{advice}")


def field_types(cls: Any) -> dict[str, Any]:
    """Returns the type of each field of a dataclass by name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {item.name: _declared(hints[item.name]) for item in fields(cls)}


def _declared(hint: Any) -> Any:
    metadata = getattr(hint, "__metadata__", ())
    return metadata[0].hint if metadata and isinstance(metadata[0], Declared) else hint


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return _fits(value, arguments[0]) and bool(arguments[1].allows(value))
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Callable:
        return callable(value) or any(hasattr(value, name) for name in ENV_OR_AGENT_ATTRIBUTES)
    if origin in (list, dict):
        items = value.values() if isinstance(value, dict) else value
        return isinstance(value, origin) and all(_fits(item, arguments[-1]) for item in items)
    if hint in (int, float):
        number = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, hint)


def _options(hint: Any) -> list[str]:
    """Describes each alternative that a type allows."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        base, constraint = arguments
        return [f"{name!r}" for name in constraint.names] if base is str else [f"{TYPE_NAMES[base]} {constraint}"]
    if origin in (typing.Union, types.UnionType):
        return [option for part in arguments for option in _options(part)]
    if origin is list:
        return [f"a list of {', '.join(_options(arguments[0]))}"]
    return [TYPE_NAMES.get(origin or hint) or hint.__name__]
