"""Stops an evaluation before all of its episodes are played: at a time limit, or as the training is interrupted."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rlwandb_callbacks.evaluation.time_limit import Interruption, Watchdog

LIMIT_REACHED = "{setting} = {seconds:g} was reached. Raise it, or lower evaluation.episodes or evaluation.max_steps."
HANGS = "{what} had not returned at the time limit of {seconds:g} s{place}."
RAISE_LIMIT = " If it is slow and does not hang, raise {setting}."
CANNOT_INTERRUPT = (
    "{what} does not return{place}, and cannot be interrupted there, so that training waits for it. Environments that "
    "hang in compiled code can be ended if they run in processes of their own, such as those of "
    "gymnasium.vector.AsyncVectorEnv."
)
CATCHES = (
    "{what} does not return{place}, and catches each exception by which it is interrupted (`except:` or `except "
    "BaseException:`), so that training waits for it. Let it catch Exception only."
)
INTERRUPTED = "The training is being interrupted."


class StoppedError(RuntimeError):
    """An evaluation was stopped before all of its episodes were played; the message says why."""


class _Blocks(threading.local):
    """The interruptible block that each thread is in."""

    watchdog: Watchdog | None = None


_blocks = _Blocks()


@contextmanager
def limited_part(what: str, max_seconds: float) -> Iterator[None]:
    """Ends a part of an interruptible block by a StoppedError if it takes too long; the block may go on.

    Outside of such blocks, and where nothing limits them, there is no limit.

    Args:
        what: What does not return, as the subject of a message.
        max_seconds: Time limit of the part in seconds, > 0.
    """
    watchdog = _blocks.watchdog
    if watchdog is None:
        yield
        return
    with watchdog.limited_part(max_seconds) as is_too_long:
        try:
            yield
        except Interruption as interruption:
            if not is_too_long():
                watchdog.hanging_part = what
                raise
            message = HANGS.format(what=what, seconds=max_seconds, place=_where(watchdog.place))
            raise StoppedError(message) from interruption


def is_limited() -> bool:
    """Returns whether this thread is in an interruptible block, which may have a :func:`limited_part`."""
    return _blocks.watchdog is not None


class Stopping:
    """Says whether one evaluation on this rank must stop; its clock starts when this is made.

    What plays asks :meth:`check` at each step, which takes less than a microsecond. Calls that may hang are made
    inside :meth:`interruptible`.

    Args:
        max_seconds: Time limit of the evaluation in seconds; None for no limit.
        is_interrupted: Returns whether the training is being interrupted, such as by SIGTERM. It is called at each
            step, and also by another thread. By default it never is.
        warn: Called by another thread with a message about a call that hangs and cannot be interrupted.
        setting: Setting that has ``max_seconds``, for messages; empty if it cannot be set.
    """

    def __init__(
        self,
        max_seconds: float | None = None,
        is_interrupted: Callable[[], bool] | None = None,
        warn: Callable[[str], object] = lambda _: None,
        setting: str = "evaluation.max_seconds",
    ) -> None:
        self._max_seconds, self._warn, self._setting = max_seconds, warn, setting
        self._is_interrupted = is_interrupted or (lambda: False)
        self._is_limited = max_seconds is not None or is_interrupted is not None
        self._deadline = None if max_seconds in (None, math.inf) else time.monotonic() + max_seconds

    def check(self) -> None:
        """Raises a StoppedError if the evaluation must stop."""
        if self._is_interrupted():
            raise StoppedError(INTERRUPTED)
        if self._is_late():
            raise StoppedError(LIMIT_REACHED.format(setting=self._setting, seconds=self._max_seconds))

    def after(self, max_seconds: float) -> Stopping:
        """Returns a time limit for work after the evaluation; none if the evaluation has none."""
        return Stopping(max_seconds if self._is_limited else None, warn=self._warn, setting="")

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _must_stop(self) -> bool:
        return self._is_interrupted() or self._is_late()

    @contextmanager
    def interruptible(self, what: Callable[[], str]) -> Iterator[None]:
        """Ends a block by a StoppedError if it goes on for more than ``GRACE_SECONDS`` after it must stop.

        The block must be able to end anywhere. Blocks must not be nested; a block may have a :func:`limited_part`.

        Args:
            what: Returns what does not return, as the subject of a message: "The environment".
        """
        if not self._is_limited:
            yield
            return

        def warn(place: str) -> None:
            self._warn(self._message(CATCHES if watchdog.has_raised else CANNOT_INTERRUPT, what(), place))

        seconds_left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        watchdog = _blocks.watchdog = Watchdog(self._must_stop, warn, seconds_left, self._is_interrupted)
        try:
            try:
                watchdog.start()
                yield
            finally:
                watchdog.disarm()
        except Interruption as interruption:
            if self._is_interrupted():
                raise StoppedError(INTERRUPTED) from interruption
            template = f"{HANGS}{RAISE_LIMIT}" if self._setting else HANGS
            message = self._message(template, watchdog.hanging_part or what(), watchdog.place)
            raise StoppedError(message) from interruption
        finally:
            _blocks.watchdog = None
            watchdog.stop()

    def _message(self, template: str, what: str, place: str) -> str:
        return template.format(setting=self._setting, seconds=self._max_seconds, what=what, place=_where(place))


def _where(place: str) -> str:
    return f", in {place}" if place else ""
