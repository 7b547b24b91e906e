"""What a worker sends back: bytes that every process can read, whatever the job raised.

An exception of a foreign class may pickle in one process and not unpickle in another. An executor that has to send it
breaks, and loses all other jobs, or never answers. So executors get bytes only, in which errors are texts. This module
imports the standard library only, as :mod:`~rlwandb_callbacks.tracking.worker_process` does.
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from collections.abc import Mapping
from typing import Any

from rlwandb_callbacks.errors import RemoteError, RemoteTraceback, name_and_message

OWN_PACKAGE = __name__.partition(".")[0]
MAX_TRACEBACK_CHARACTERS = 20_000  # its end is kept; an endless recursion has a long one
MAX_ERROR_BYTES = 20_000  # of a pickled error; a longer one is sent as text
PLAIN_TYPES = (str, bytes, int, float, bool, type(None))


def pack_reply(values: Mapping[str, bytes], error: BaseException | None) -> bytes:
    """Packs pickled values by their keys, and an error with its traceback."""
    described = None
    if error is not None:
        described = name_and_message(error), _traceback_of(error), pickle.dumps(portable_error(error))
    return pickle.dumps((dict(values), described))


def unpack_reply(packed: bytes) -> tuple[dict[str, bytes], Exception | None]:
    """Returns the pickled values and the error of :func:`pack_reply`.

    The error is that of :func:`portable_error`. Its ``__cause__`` has the traceback.

    Example:
        >>> unpack_reply(pack_reply({"eval/a": b"..."}, KeyError("reward")))
        ({'eval/a': b'...'}, KeyError('reward'))
        >>> unpack_reply(pack_reply({}, SystemExit(3)))
        ({}, RemoteError('SystemExit: 3'))

    Raises:
        Exception: Of any type, if these bytes are no reply.
    """
    values, described = pickle.loads(packed)  # noqa: S301  # made above, of texts and bytes only  # nosec B301
    if described is None:
        return values, None
    text, traceback_text, pickled = described
    error: Exception = RemoteError(text)
    with contextlib.suppress(Exception):  # another version of Python, or of this package, may not have its class
        error = pickle.loads(pickled)  # noqa: S301  # plain values, and a class of Python or ours  # nosec B301
    error.__cause__ = RemoteTraceback(traceback_text)
    return values, error


def portable_error(error: BaseException) -> Exception:
    """Returns an error that every process can unpickle.

    That is the error itself if Python or this package defines its class, and it holds plain values only; otherwise a
    RemoteError with its text.

    Example:
        >>> portable_error(OSError(28, "No space left on device"))
        OSError(28, 'No space left on device')
        >>> portable_error(type("NoLicense", (OSError,), {})("No license was found"))
        RemoteError('NoLicense: No license was found')
    """
    kind = type(error)
    is_known = kind.__module__.partition(".")[0] in ("builtins", OWN_PACKAGE)
    if is_known and isinstance(error, Exception) and _is_plain([*error.args, *vars(error).values()]):
        with contextlib.suppress(Exception):  # attributes that are no part of vars(error), or a constructor of its own
            pickled = pickle.dumps(error)
            is_short = len(pickled) <= MAX_ERROR_BYTES
            if is_short and type(pickle.loads(pickled)) is kind:  # noqa: S301  # pickled above  # nosec B301
                return error
    return RemoteError(name_and_message(error))


def _is_plain(value: Any) -> bool:
    """Returns whether a value consists of numbers and texts, of exactly these types."""
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return type(value) in PLAIN_TYPES


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARACTERS:]
    except Exception:  # noqa: BLE001  # code of foreign classes
        return ""
