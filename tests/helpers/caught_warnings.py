"""Warnings of this package among all that a test has caught."""

from __future__ import annotations

from typing import Any


def package_warnings(caught: Any) -> list[str]:
    """Returns the texts of the warnings of this package."""
    return [str(warning.message) for warning in caught if "rlwandb" in str(warning.message)]
