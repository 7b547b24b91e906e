"""Printing that cannot fail: the reader of a pipe may have gone, or the terminal may be closed."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_lock = threading.Lock()


class _Unfailing:
    """Stream whose ``write`` and ``flush`` drop what the stream behind it does not take; all else is that stream's."""

    def __init__(self, stream: Any) -> None:
        object.__setattr__(self, "_stream", stream)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        return _unfailing(found) if name in ("write", "writelines", "flush") else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._stream, name, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)


def _unfailing(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def called(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (OSError, ValueError):  # a broken pipe, a closed terminal, a stream that was closed
            return len(arguments[0]) if arguments and isinstance(arguments[0], str | bytes) else None

    return called


@contextlib.contextmanager
def unfailing_output() -> Iterator[None]:
    """Lets no error of ``sys.stdout`` or ``sys.stderr`` come out of the block; what cannot be printed is dropped.

    It is for code that prints on our behalf: progress bars, log lines, warnings, the start and the end of a run. Other
    threads that print meanwhile are served in the same way.

    Example:
        >>> from contextlib import redirect_stdout
        >>> from io import StringIO
        >>> closed = StringIO()
        >>> closed.close()
        >>> with redirect_stdout(closed), unfailing_output():
        ...     print("text")
    """
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stack.enter_context(_replaced(name))
        yield


def stream_of_progress() -> Any:
    """Returns a stream for a progress bar, by default ``sys.stderr``, whose errors are dropped; None if there is none.

    It is not the stream that a live display of Rich (Lightning's ``RichProgressBar``) puts in the place of ``stderr``:
    in notebooks each flush of an unfinished line is displayed there, which flushes it again, without an end.
    """
    stream: Any = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
    return stream if stream is None or isinstance(stream, _Unfailing) else _Unfailing(stream)


def seconds_between_refreshes(stream: Any) -> float:
    """Returns how often a progress bar is printed: 0.25 s on a terminal, 10 s elsewhere, where each is a new line."""
    with contextlib.suppress(OSError, ValueError):  # of a stream that was closed
        return 0.25 if stream is not None and stream.isatty() else 10.0
    return 10.0


@contextlib.contextmanager
def _replaced(name: str) -> Iterator[None]:
    with _lock:
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, _Unfailing):
            replacement = None
        else:
            replacement = _Unfailing(stream)
            setattr(sys, name, replacement)
    try:
        yield
    finally:
        with _lock:
            if replacement is not None and getattr(sys, name) is replacement:
                setattr(sys, name, stream)
