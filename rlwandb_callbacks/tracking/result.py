"""Jobs that may run in another process, and their result."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, Union

from rlwandb_callbacks.core.process_settings import preserved_process_settings, preserved_working_folder
from rlwandb_callbacks.core.values import Value
from rlwandb_callbacks.errors import describe_error
from rlwandb_callbacks.tracking.reply import pack_reply, unpack_reply

Job: TypeAlias = Callable[[], Union[Mapping[str, Value], "Result"]]
"""Slow work: a picklable callable that returns values by their keys, or a Result if only a part of it succeeded.

Its attribute ``name``, if it has one, stands for its work in messages: "video/best of step 400".
"""


def job_name(job: Job) -> str:
    """Returns the name of a job; empty if it has none."""
    return str(getattr(job, "name", ""))


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
    return merged(map(_run, jobs))


def _run(job: Job) -> Result:
    try:
        with preserved_working_folder(), preserved_process_settings():
            outcome = job()
            return outcome if isinstance(outcome, Result) else Result(dict(outcome))
    except Exception as error:  # noqa: BLE001  # jobs run foreign code; each may fail alone
        return Result(error=error)


def merged(results: Iterable[Result]) -> Result:
    """Returns all values of several results, and their first error."""
    values: dict[str, Value] = {}
    first_error: Exception | None = None
    for result in results:
        values |= result.values
        first_error = first_error or result.error
    return Result(values, first_error)


def run_to_bytes(jobs: Iterable[Job]) -> bytes:
    """Runs jobs like :func:`run_all`, and packs the result for :func:`from_bytes`.

    Values are pickled one by one, so that one that cannot be pickled, or not be unpickled elsewhere, costs itself only.
    """
    import cloudpickle

    result = run_all(jobs)
    packed: dict[str, bytes] = {}
    error = result.error
    for key, value in result.values.items():
        try:
            packed[str(key)] = bytes(cloudpickle.dumps(value))
        except Exception as reason:  # noqa: BLE001, PERF203  # pickling runs methods of foreign classes
            error = error or RuntimeError(f"{key} cannot be pickled: {describe_error(reason)}")
    return pack_reply(packed, error)


def from_bytes(packed: bytes) -> Result:
    """Returns the result that :func:`run_to_bytes` packed, without the values that cannot be unpickled.

    Raises:
        Exception: Of any type, if it did not pack these bytes.
    """
    values: dict[str, Value] = {}
    pickled, error = unpack_reply(packed)
    for key, value in pickled.items():
        try:
            values[key] = pickle.loads(value)  # noqa: S301  # pickled by a worker of this process  # nosec B301
        except Exception as reason:  # noqa: BLE001, PERF203  # unpickling runs methods of foreign classes
            error = error or RuntimeError(f"{key} cannot be unpickled: {describe_error(reason)}")
    return Result(values, error)
