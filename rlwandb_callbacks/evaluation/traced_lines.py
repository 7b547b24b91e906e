"""Reaches code that catches every exception: at one of the lines that it runs next, by a trace function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class TracedLines:
    """Calls a function, which may raise, before one of the next lines of some code runs.

    An exception that a loop with a bare ``except:`` has caught is followed by lines outside of its ``try``, where
    another one leaves the loop. Python removes a trace function that raises. Nothing is traced where a debugger or a
    measurement of coverage already does so.

    Args:
        on_line: Called before the line, in the thread that runs it.
        is_foreign: Returns whether the code in a file may be traced; the first file of which it may not ends the code.
    """

    def __init__(self, on_line: Callable[[], object], is_foreign: Callable[[str], bool]) -> None:
        self._on_line, self._is_foreign = on_line, is_foreign
        self._lines_left = 0

    def start(self, frame: FrameType | None, lines: int) -> None:
        """Waits for a line of a frame, or of one of its callers; ``lines`` ≥ 1 is 1 for the next line."""
        if sys.gettrace() not in (None, self._enter):
            return
        self._lines_left = lines
        while frame is not None and self._is_foreign(frame.f_code.co_filename):
            frame.f_trace = self._trace
            frame = frame.f_back
        sys.settrace(self._enter)

    def stop(self) -> None:
        """Waits no longer; to be called in the thread that runs the code."""
        if sys.gettrace() == self._enter:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, value: Any) -> None:
        """Leaves functions alone that are called from now on."""

    def _trace(self, frame: FrameType, event: str, value: Any) -> Any:
        if event == "line" and sys.gettrace() == self._enter:
            self._lines_left -= 1
            if self._lines_left == 0:
                self._on_line()
        return self._trace
