"""Errors and warnings of one evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rlwandb_callbacks.callbacks.session import Session
from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.evaluation.stopping import StoppedError

TIME_LIMIT = "time limit"


class EvaluationErrors:
    """Error policy of a session for one evaluation; messages name it if it has a name.

    A warning that one evaluation has given does not keep back that of another one.

    Args:
        session: Session with the error policy.
        name: Name of the evaluation; None if it has none.
    """

    def __init__(self, session: Session, name: str | None) -> None:
        self._session, self._name = session, name

    def warn_once(self, message: str, *, kind: str) -> None:
        """Warns if no warning of this kind was given for this evaluation in this training."""
        named = message if self._name is None else f"evaluation {self._name!r}: {message}"
        self._session.errors.warn_once(named, kind=self._with_name(kind))

    def report_error(self, what: str, error: Exception) -> None:
        """Counts an error and warns of the first one in this work, or the first one at a time limit, or raises it."""
        is_late = isinstance(error, StoppedError) or isinstance(error.__cause__, StoppedError)
        kind = self._with_name(TIME_LIMIT) if is_late else None
        self._session.errors.report_error(self._with_name(what), error, kind=kind)

    @contextlib.contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Reports an exception of the block."""
        with self._session.errors.guard(self._with_name(what)):
            try:
                yield
            except StoppedError as error:
                self.report_error(what, error)

    def _with_name(self, what: str) -> str:
        return what if self._name is None else f"{what} ({self._name!r})"

    def named(self, error: Exception) -> Exception:
        """Returns an error of a setting, of the policy or of the environment with the name of the evaluation."""
        if self._name is None or not isinstance(error, ConfigError):
            return error
        return type(error)(f"Evaluation {self._name!r}: {error}")
