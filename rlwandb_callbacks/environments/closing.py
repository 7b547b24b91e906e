"""Closes environments without taking from the training what all environments of a process share."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

TERMINATION_SECONDS = 1.0  # in which processes may end by themselves


class Closable(Protocol):
    """An environment, or anything else with a method ``close``."""

    def close(self) -> Any:
        """Frees its resources."""


EnvT = TypeVar("EnvT", bound=Closable)


@contextlib.contextmanager
def closing(env: EnvT) -> Iterator[EnvT]:
    """Closes an environment at the end of the block; see :func:`close`."""
    try:
        yield env
    finally:
        close(env)


def close(env: Closable) -> None:
    """Closes an environment, and leaves pygame running.

    pygame has one display per process: ``pygame.quit()``, which many environments call, also ends that of the training
    environment. The processes of a vector are also ended if it fails to close, as ``AsyncVectorEnv`` does if one of
    them has ended by itself.
    """
    with running_pygame():
        try:
            env.close()
        except BaseException:
            end_processes(env)
            raise


def end_processes(env: Any) -> bool:
    """Ends the processes of a vector, also those that hang or are suspended; returns whether it has processes."""
    vector: Any = getattr(env, "unwrapped", None)
    processes = getattr(vector, "processes", None)
    if not isinstance(processes, list):
        return False
    vector.closed = True  # it is not to be closed again when it is deleted
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + TERMINATION_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join(TERMINATION_SECONDS)
    return True


@contextlib.contextmanager
def running_pygame() -> Iterator[None]:
    """Makes the functions that end pygame do nothing, if it is running.

    ``AsyncVectorEnv`` closes an environment when it is made, too.
    """
    pygame: Any = sys.modules.get("pygame")
    if pygame is None or not (pygame.get_init() or pygame.display.get_init()):
        yield
        return
    parts = [pygame, *(getattr(pygame, name, None) for name in ("display", "font", "mixer"))]
    functions = [(part, part.quit) for part in parts if hasattr(part, "quit")]
    for part, _ in functions:
        part.quit = _do_nothing
    try:
        yield
    finally:
        for part, function in functions:
            part.quit = function


def _do_nothing() -> None:
    pass
