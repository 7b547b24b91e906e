"""Failures of an environment: an exception, an attempt to end the process, and an error of ``close``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from rlwandb_callbacks.environments.closing import Closable, EnvT, close
from rlwandb_callbacks.errors import describe_error
from rlwandb_callbacks.evaluation.stopping import StoppedError, Stopping, is_limited, limited_part
from rlwandb_callbacks.evaluation.time_limit import Interruption

CLOSE = "close() of the environment"
CLOSING_SECONDS = 10.0  # that close() may take, whatever is left of the time limit of the evaluation
CLOSING_AGAIN_SECONDS = 1.0  # for environments of a type whose close() has not returned before

_hanging_types: WeakSet[type] = WeakSet()


@dataclass(frozen=True)
class EnvFailure:
    """Takes the place of an observation or a step that an environment could not give."""

    error: Exception


class EnvExitError(RuntimeError):
    """The environment tried to end the process."""


@contextlib.contextmanager
def env_call() -> Iterator[None]:
    """Turns ``sys.exit()`` and other exceptions that would end the training into an error of the environment.

    KeyboardInterrupt, and what a signal handler raises, end the training as usual. An Interruption ends what plays. A
    process that the environment has forked ends by its ``sys.exit()`` or error.
    """
    process = os.getpid()
    try:
        yield
    except GeneratorExit:  # also of generators that a forked process has only inherited
        raise
    except BaseException as error:
        end_forked_process(error, process)
        if isinstance(error, Exception | KeyboardInterrupt | Interruption):
            raise
        if _comes_from_signal_handler(error):
            raise
        what = (
            f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {describe_error(error)}"
        )
        raise EnvExitError(f"The environment {what}") from error


def end_forked_process(error: BaseException, parent: int) -> None:
    """Ends this process by its ``sys.exit()`` or error, if it was forked from that of the training.

    It must not go on as a second training, nor run the end of the training, which saves checkpoints and closes the run.
    """
    if os.getpid() == parent:
        return
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        error = SystemExit(1)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))


def failure_of(error: BaseException, process: int) -> EnvFailure:
    """Returns the failure of an environment that raised ``error``; what ends the training is raised again.

    Each step catches errors itself and calls this, because the context manager :func:`env_call` would take longer than
    the rest of its bookkeeping. ``process`` is the id of the process that plays.
    """
    end_forked_process(error, process)
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


def closing_limit() -> Stopping | None:
    """Returns the time limit of ``close`` for work that has none, such as jobs in a worker."""
    return None if is_limited() else Stopping(CLOSING_SECONDS, setting="")


@contextlib.contextmanager
def closing_env(
    env: EnvT, on_failure: Callable[[Exception], object] = lambda _: None, stopping: Stopping | None = None
) -> Iterator[EnvT]:
    """Closes an environment at the end of the block; an error of ``close`` does not end it.

    A ``close`` that does not return is such an error, too, inside of interruptible blocks and with ``stopping``, which
    is for use outside of them.
    """
    try:
        yield env
    finally:
        if stopping is None:
            close_env(env, on_failure)
        else:
            try:
                with stopping.after(_closing_seconds(env)).interruptible(lambda: CLOSE):
                    close_env(env, on_failure)
            except StoppedError as error:
                _hanging_types.add(_type_of(env))
                on_failure(error)


def close_env(env: Closable, on_failure: Callable[[Exception], object] = lambda _: None) -> None:
    """Closes an environment, and passes an error of ``close`` to ``on_failure``."""
    try:
        with limited_part(CLOSE, _closing_seconds(env)), env_call():
            close(env)
    except Exception as error:  # noqa: BLE001  # environments may raise anything
        if isinstance(error, StoppedError):
            _hanging_types.add(_type_of(env))
        on_failure(error)


def _closing_seconds(env: Any) -> float:
    return CLOSING_AGAIN_SECONDS if _type_of(env) in _hanging_types else CLOSING_SECONDS


def _type_of(env: Any) -> type:
    """Returns the type of an environment without its wrappers, or of those of a batch."""
    found = vars(env).get("env_type") if hasattr(env, "__dict__") else None
    return found if isinstance(found, type) else type(getattr(env, "unwrapped", env))
