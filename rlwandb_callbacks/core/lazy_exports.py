"""Exports of a package that are imported when they are first used."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy_exports(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Reads the exports of a package from the stub beside its ``__init__.py``, so that each name is written once.

    Args:
        package: ``__name__`` of the package.
        file: ``__file__`` of the package. Its stub has a line ``from module import name as name`` for each export.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` of the package.
    """
    lines = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8")).body
    modules = {
        alias.name: str(line.module) for line in lines if isinstance(line, ast.ImportFrom) for alias in line.names
    }
    names = sorted(modules)

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return get, lambda: names, names
