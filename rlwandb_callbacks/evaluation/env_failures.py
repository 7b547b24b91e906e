"""Failures of an environment: an exception, an attempt to end the process, and an error of ``close``."""

from __future__ import annotations

import contextlib
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlwandb_callbacks.environments.closing import Closable, EnvT, close
from rlwandb_callbacks.errors import describe_error


@dataclass(frozen=True)
class EnvFailure:
    """Takes the place of an observation or a step that an environment could not give."""

    error: Exception


class EnvExitError(RuntimeError):
    """The environment tried to end the process."""


@contextlib.contextmanager
def env_call() -> Iterator[None]:
    """Turns ``sys.exit()`` and other exceptions that would end the training into an error of the environment.

    KeyboardInterrupt, and what a signal handler raises, end the training as usual.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if _comes_from_signal_handler(error):
            raise
        what = (
            f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {describe_error(error)}"
        )
        raise EnvExitError(f"The environment {what}") from error


def failure_of(error: BaseException) -> EnvFailure:
    """Returns the failure of an environment that raised ``error``; what ends the training is raised again.

    Each step catches errors itself and calls this, because the context manager :func:`env_call` would take longer than
    the rest of its bookkeeping.
    """
    try:
        with env_call():
            raise error
    except Exception as found:  # noqa: BLE001  # environments may raise anything
        return EnvFailure(found)


def _comes_from_signal_handler(error: BaseException) -> bool:
    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    functions = [getattr(handler, "__func__", handler) for handler in handlers if callable(handler)]
    codes = {getattr(each, "__code__", getattr(type(each).__call__, "__code__", None)) for each in functions}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


@contextlib.contextmanager
def closing_env(env: EnvT, on_failure: Callable[[Exception], object] = lambda _: None) -> Iterator[EnvT]:
    """Closes an environment at the end of the block; an error of ``close`` does not end it."""
    try:
        yield env
    finally:
        close_env(env, on_failure)


def close_env(env: Closable, on_failure: Callable[[Exception], object] = lambda _: None) -> None:
    """Closes an environment, and passes an error of ``close`` to ``on_failure``."""
    try:
        with env_call():
            close(env)
    except Exception as error:  # noqa: BLE001  # environments may raise anything
        on_failure(error)
