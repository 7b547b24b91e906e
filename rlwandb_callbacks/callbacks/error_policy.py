"""Decides what an error in logging does to a training: a warning and a count, or an exception."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator

from rlwandb_callbacks.callbacks.failure_causes import find_cause, has_advice
from rlwandb_callbacks.callbacks.logging_time import LoggingTimer
from rlwandb_callbacks.core.output import unfailing_output
from rlwandb_callbacks.core.secrets import masked
from rlwandb_callbacks.errors import name_and_message, sentence


class ErrorPolicy:
    """Turns errors in logging into warnings, one for each cause, unless they are to be raised.

    Errors without a recognized cause are grouped by the work that failed.

    Args:
        raises: Raise errors (``on_error: raise``) rather than warn.
        timer: Measures the time that guarded blocks take.

    Attributes:
        count: Number of errors since the start of the training.

    Example:
        >>> policy = ErrorPolicy(raises=False, timer=LoggingTimer())
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     with policy.guard("Drawing"):
        ...         raise OSError("no display")
        >>> policy.count, str(caught[0].message)
        (1, 'rlwandb: Drawing failed, and training goes on: OSError: no display')
    """

    def __init__(self, *, raises: bool, timer: LoggingTimer) -> None:
        self._raises, self._timer = raises, timer
        self._secrets: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """Starts again for a new training: no errors, no warnings yet."""
        self.count = 0
        self._warned: set[str] = set()

    def hide(self, secrets: Iterable[str]) -> None:
        """Adds texts that no warning may contain, such as passwords in the settings."""
        self._secrets.update(secrets)

    @contextlib.contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Reports an exception of the block; ``what`` is its work, as the subject of a warning ("The evaluation")."""
        try:
            with self._timer.running():
                yield
        except Exception as error:  # noqa: BLE001  # no error in logging may end a training
            self.report_error(what, error)

    def report_error(self, what: str, error: Exception, *, kind: str | None = None) -> None:
        """Counts an error, and warns of the first one of its cause or ``kind`` (by default its work), or raises it."""
        if self._raises:
            raise error
        self.count += 1
        message = f"{what} failed, and training goes on: {name_and_message(error)}"
        cause = find_cause(error)
        if cause is None:
            self.warn_once(message, kind=kind or what)
        else:
            remedy = "" if has_advice(error) else f" {cause.remedy}"
            self.warn_once(f"{sentence(message)}{remedy}", kind=cause.name)

    def warn_once(self, message: str, *, kind: str) -> None:
        """Warns if no warning of this kind was given in this training."""
        if kind not in self._warned:
            self._warned.add(kind)
            with unfailing_output():
                warnings.warn(f"rlwandb: {masked(message, self._secrets)}", UserWarning, stacklevel=2)
