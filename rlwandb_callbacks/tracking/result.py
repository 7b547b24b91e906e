"""Jobs that may run in another process, and their result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from rlwandb_callbacks.core.process_settings import preserved_process_settings
from rlwandb_callbacks.core.values import Value

Job: TypeAlias = Callable[[], Mapping[str, Value]]
"""Slow work: a picklable callable that returns values by their keys."""


@dataclass(frozen=True)
class Result:
    """Result of one or several jobs: the values they returned, and an error.

    Args:
        values: By their keys; those of the jobs that succeeded.
        error: The first exception that a job raised; None if all succeeded.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    error: Exception | None = None


def run_all(jobs: Iterable[Job]) -> Result:
    """Runs jobs one after the other; one that fails costs its own values only.

    Args:
        jobs: Run in this order. Of two values with one key, the later one is kept.

    Example:
        >>> from functools import partial
        >>> from rlwandb_callbacks.core.values import Scalar
        >>> run_all([partial(dict, a=Scalar(1.0)), partial(int, "x"), partial(dict, b=Scalar(2.0))])
        Result(values={'a': Scalar(value=1.0), 'b': Scalar(value=2.0)}, error=ValueError("invalid literal..."))
    """
    values: dict[str, Value] = {}
    errors: list[Exception] = []
    for job in jobs:
        try:
            with preserved_process_settings():
                values |= job()
        except Exception as error:  # noqa: BLE001, PERF203  # jobs run foreign code; each may fail alone
            errors.append(error)
    return Result(values, errors[0] if errors else None)
