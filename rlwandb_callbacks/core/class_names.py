"""Recognizes classes by name, where a package need not be loaded or several packages define the same class."""

from __future__ import annotations


def has_base_named(cls: type, *names: str) -> bool:
    """Returns whether a class, or one that it inherits from, has one of the names.

    Example:
        >>> has_base_named(bool, "str", "int"), has_base_named(bool, "float")
        (True, False)
    """
    return any(base.__name__ in names for base in cls.__mro__)
