"""Interrupts calls of environments and policies that do not return."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from rlwandb_callbacks.evaluation.traceback_timer import TracebackTimer
from rlwandb_callbacks.evaluation.traced_lines import TracedLines

POLL_SECONDS = 0.1
GRACE_SECONDS = 0.8  # for a slow call to return by itself
AGAIN_SECONDS = 2.0
BURST_SECONDS = 0.005  # between two interruptions that are to hit code and its handler of exceptions
GENTLE_INTERRUPTIONS = 2  # one by one, so that code can clean up, before those that come in bursts
TIMER_SECONDS = 4.0  # after which this module's thread seems to be kept from running
MAX_UNHANDLED = 3  # interruptions that are not raised
MAX_CAUGHT = 10  # interruptions that are raised, and caught by what hangs
SIGNAL: signal.Signals | None = getattr(signal, "SIGURG", None)
"""Its default action is to ignore it, so that one that comes late has no effect, and programs rarely use it."""

_PACKAGE = str(Path(__file__).parents[1])
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_SITE_PACKAGES = ("site-packages", "dist-packages")
_NOT_TO_INTERRUPT = {__file__, str(Path(__file__).with_name("stopping.py")), contextlib.__file__}


class Interruption(BaseException):
    """Raised inside a call that does not return. No Exception, as environments and policies may catch any of these."""


class Watchdog:
    """Raises an Interruption in the calling thread if it stays in a block for long after the block must end.

    In the main thread this is done by a signal handler, which also ends calls that wait for something: ``sleep``,
    locks, pipes, sockets, processes. In other threads only Python code can be interrupted. A call that waits in
    compiled code of its own cannot be interrupted; ``on_failure`` is called then. If it also keeps other threads from
    running, its place is written to stderr some seconds later.

    Args:
        is_due: Returns whether the block must end; called by another thread, about ten times a second.
        on_failure: Called with the place in the code, by another thread, if interruptions have no effect.
        seconds_left: Time until the block must end; None if it is not known.
        is_urgent: Returns whether parts of the block that have a time limit of their own must end too.
    """

    def __init__(
        self,
        is_due: Callable[[], bool],
        on_failure: Callable[[str], object],
        seconds_left: float | None = None,
        is_urgent: Callable[[], bool] = lambda: False,
    ) -> None:
        self.place = ""  # in the code, where the block was interrupted first; "" if that is not known
        self.hanging_part = ""  # of the block, as the subject of a message; "" if the block has no part that hangs
        self.has_raised = False  # an Interruption in the block, which may have caught it
        self._is_due, self._on_failure, self._is_urgent = is_due, on_failure, is_urgent
        self._thread_id = threading.get_ident()
        self._ended = threading.Event()
        self._lock = threading.Lock()  # held while an interruption is sent
        self._is_armed = self._is_requested = False
        self._has_handler = False
        self._seconds_left = seconds_left
        self._part_deadline: float | None = None
        self._timer: TracebackTimer | None = None
        self._num_raised = 0
        self._lines = TracedLines(self._interrupt_line, lambda filename: not filename.startswith(_PACKAGE))
        self._thread = threading.Thread(target=self._watch, name="rlwandb time limit", daemon=True)

    def start(self) -> None:
        """Begins to watch the calling thread."""
        if (
            SIGNAL is not None
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(SIGNAL) is signal.SIG_DFL
        ):
            signal.signal(SIGNAL, self._interrupt)
            self._has_handler = True
        if self._seconds_left is not None:
            self._timer = TracebackTimer(self._seconds_left + GRACE_SECONDS + TIMER_SECONDS, self._interrupt)
        self._thread.start()
        self._is_armed = True  # last, as the start of a thread must not be interrupted

    def disarm(self) -> None:
        """Ends the block that may be interrupted, and takes back an interruption that was not raised yet."""
        self._lines.stop()
        with self._lock:
            self._is_armed = False
            self._take_back()

    def _take_back(self) -> None:
        if self._is_requested and not self._has_handler:
            _catch_pending()
        self._is_requested = False

    def stop(self) -> None:
        """Ends the thread and gives the signal back; nothing is interrupted any more."""
        self.disarm()  # again, as an interruption may have ended the first call
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._timer is not None:
            self._timer.close()
        if self._has_handler and signal.getsignal(SIGNAL) == self._interrupt:  # type: ignore[arg-type]  # not None here
            signal.signal(SIGNAL, signal.SIG_DFL)  # type: ignore[arg-type]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handles the signal; code that could not clean up is interrupted a little later."""
        if frame is not None and frame.f_code.co_filename in _NOT_TO_INTERRUPT:
            return
        if self._is_armed and (self._is_requested or number != SIGNAL):
            self.has_raised = True
            self._num_raised += 1
            if self._num_raised > GENTLE_INTERRUPTIONS:
                self._lines.start(frame, self._num_raised - GENTLE_INTERRUPTIONS)
            raise Interruption

    def _interrupt_line(self) -> None:
        if self._is_armed and self._is_requested:
            raise Interruption

    def _watch(self) -> None:
        while not self._ended.is_set():
            while not self._is_due_now():
                self._cancel_timer()
                if self._ended.wait(POLL_SECONDS):
                    return
            self._cancel_timer()
            self._interrupt_again_and_again()

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._is_due():
            self._timer.cancel()  # this thread can do its work

    def _interrupt_again_and_again(self) -> None:
        """Interrupts the block, or the part of it that is limited, until it has ended."""
        count, pause = 0, GRACE_SECONDS
        while not self._ended.wait(pause) and self._is_due_now():
            place = place_of(self._thread_id)
            self.place = self.place or place
            if count == (MAX_CAUGHT if self.has_raised else MAX_UNHANDLED):
                self._on_failure(place)
            count, pause = count + 1, AGAIN_SECONDS
            self._request()
            if self.has_raised and count > GENTLE_INTERRUPTIONS and not self._ended.wait(BURST_SECONDS):
                self._request()  # also within an `except:` that catches every exception

    def _is_due_now(self) -> bool:
        part_deadline = self._part_deadline
        if part_deadline is None:
            return self._is_due()
        return time.monotonic() >= part_deadline or self._is_urgent()

    @contextlib.contextmanager
    def limited_part(self, max_seconds: float) -> Iterator[Callable[[], bool]]:
        """Interrupts a part of the block if it takes longer than that; yields whether this has happened.

        The part has this time even if the block must end before. The block goes on if the Interruption is caught.
        """
        deadline = self._part_deadline = time.monotonic() + max_seconds
        try:
            yield lambda: self._is_requested and time.monotonic() >= deadline and not self._is_urgent()
        finally:
            self._lines.stop()
            with self._lock:
                self._part_deadline = None
                self._take_back()
            if not self._is_due():
                self.place = ""

    def _request(self) -> None:
        with self._lock:
            if self._is_armed and self._is_due_now():
                self._send()

    def _send(self) -> None:
        self._is_requested = True
        if self._has_handler and SIGNAL is not None:
            signal.pthread_kill(self._thread_id, SIGNAL)
        else:
            _raise_in(self._thread_id, Interruption)


def _raise_in(thread_id: int, error: type[BaseException]) -> None:
    """Raises an error in a thread at its next Python instruction."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(error))


def _catch_pending() -> None:
    """Catches an Interruption that this thread was sent and has not raised yet.

    ``PyThreadState_SetAsyncExc`` could take it back, but CPython 3.11 then hangs in the next function that is traced.
    """
    with contextlib.suppress(Interruption):
        for _ in range(3):  # Python raises it where a loop goes back
            pass


def place_of(thread_id: int) -> str:
    """Returns where in foreign code a thread is: file, line, function and source; "" if it is in none.

    The innermost place in code of the user is taken, else in that of libraries, else in the standard library.
    """
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001  # documented
    stack = traceback.extract_stack(frame)[::-1] if frame is not None else []
    foreign = []
    for each in stack:
        if each.filename.startswith(_PACKAGE):
            break
        foreign.append(each)
    if not foreign:
        return ""
    found = min(foreign, key=lambda each: _distance(each.filename))  # the innermost one of the nearest
    source = f": {found.line}" if found.line else ""
    return f"{Path(found.filename).name}, line {found.lineno}, in {found.name}{source}"


def _distance(filename: str) -> int:
    """Returns how far code is from that of the user: 1 for libraries, 2 for the standard library."""
    if any(name in Path(filename).parts for name in _SITE_PACKAGES):
        return 1
    return 2 if filename.startswith((_STANDARD_LIBRARY, "<frozen")) else 0
