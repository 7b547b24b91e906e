"""Reaches code that holds Python's global lock, so that no other thread can run: by a timer of the operating system."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


class TracebackTimer:
    """Writes where the program is to stderr after a time, unless it is canceled, and then calls a signal handler.

    The traceback is written at once, even inside compiled code that never returns. The handler is called as soon as
    Python code runs again, which is at once if a system call was waiting. It uses ``SIGALRM``, if nothing else does:
    no other handler and no other timer.

    Args:
        seconds: Time from now on, > 0.
        handler: Signal handler.
    """

    def __init__(self, seconds: float, handler: Handler) -> None:
        self._handler = handler
        self.is_set = False
        if not _is_free():
            return
        with contextlib.suppress(AttributeError, OSError, OverflowError, RuntimeError, ValueError):
            if sys.__stderr__ is None:
                return
            stderr = sys.__stderr__.fileno()  # it may be no file
            signal.signal(signal.SIGALRM, handler)
            self.is_set = True
            faulthandler.register(signal.SIGALRM, file=stderr, all_threads=False, chain=True)
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def cancel(self) -> None:
        """Stops the clock; any thread may do so."""
        if self.is_set and signal.getsignal(signal.SIGALRM) == self._handler:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def close(self) -> None:
        """Gives the signal back, unless other code has taken it."""
        self.cancel()
        if self.is_set and signal.getsignal(signal.SIGALRM) == self._handler:
            faulthandler.unregister(signal.SIGALRM)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self.is_set = False


def _is_free() -> bool:
    return (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )
