"""Recognizes classes by name, where a package need not be loaded or several packages define the same class."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

LIGHTNING_PACKAGES = frozenset({"pytorch_lightning", "lightning"})


def has_base_named(cls: type, *names: str) -> bool:
    """Returns whether a class, or one that it inherits from, has one of the names.

    Example:
        >>> has_base_named(bool, "str", "int"), has_base_named(bool, "float")
        (True, False)
    """
    return any(base.__name__ in names for base in cls.__mro__)


def is_overridden(instance: Any, method: str, *, packages: Collection[str]) -> bool:
    """Returns whether an object has a method that none of some top-level packages defines.

    Example:
        >>> from fractions import Fraction
        >>> is_overridden(Fraction(1), "limit_denominator", packages={"numbers"})
        True
        >>> is_overridden(Fraction(1), "limit_denominator", packages={"fractions"}), is_overridden(1, "x", packages=())
        (False, False)
    """
    origin = getattr(getattr(instance, method, None), "__module__", None)
    return origin is not None and str(origin).partition(".")[0] not in packages
