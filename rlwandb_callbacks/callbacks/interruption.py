"""Trainings that end early: by an exception, Ctrl-C, or SIGTERM, as a cluster sends it before it kills a process."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

from rlwandb_callbacks.callbacks.lightning_namespaces import NAMESPACES, LightningCallback, is_a
from rlwandb_callbacks.tracking.wait_limit import WaitLimit

EXCEPTION_SECONDS = 5.0
"""How long a training that ends by an exception or Ctrl-C waits for what is under way."""


def received_sigterm(trainer: Any) -> bool:
    """Returns whether a Trainer was told to end; it does so after the present batch."""
    return bool(getattr(trainer, "received_sigterm", False))


@contextlib.contextmanager
def limited_end(
    trainer: Any, finish_seconds: float, exception: BaseException | None = None
) -> Generator[WaitLimit, None, None]:
    """Yields how long the end of a training may wait; ``exception`` is what has ended it, if anything has.

    After SIGTERM nothing is waited for, also if it comes while waiting.
    """
    if exception is not None:
        finish_seconds = min(finish_seconds, EXCEPTION_SECONDS)
    by_signal = is_a(exception, "SIGTERMException")
    with _postponed_sigterm() as has_come:
        yield WaitLimit(finish_seconds, lambda: by_signal or bool(has_come) or received_sigterm(trainer))


@contextlib.contextmanager
def _postponed_sigterm() -> Generator[list[int], None, None]:
    """Notes SIGTERM in a list, and lets it end the process only after the block.

    Lightning has removed its own handlers when it calls the last hooks of a training that has ended well, so that the
    signal would end the process before the last rows are written. A handler of the user is called at once.
    """
    has_come: list[int] = []
    before: Any = signal.getsignal(signal.SIGTERM)
    is_handled = callable(before) and not isinstance(before, signal.Handlers)
    if threading.current_thread() is not threading.main_thread() or not (is_handled or before is signal.SIG_DFL):
        yield has_come
        return

    def note(number: int, frame: FrameType | None) -> None:
        has_come.append(number)
        if is_handled:
            before(number, frame)

    signal.signal(signal.SIGTERM, note)
    try:
        yield has_come
    finally:
        signal.signal(signal.SIGTERM, before)
        if has_come and not is_handled:
            os.kill(os.getpid(), signal.SIGTERM)


def end_interrupted(trainer: Any, *, has_ended: bool) -> None:
    """Ends a training that SIGTERM has interrupted during an evaluation, as Lightning does after a batch.

    Callbacks that read the number of this evaluation, which there is not, are not called any more: ``EarlyStopping``
    would count it as one without progress, and save that in the checkpoint. ``has_ended`` says that nothing is left to
    train.

    Raises:
        SystemExit: Lightning's ``SIGTERMException``, in a training that has not ended.
    """
    if trainer.state.fn == "fit" and not has_ended:
        raise sigterm_exception(trainer)


def sigterm_exception(trainer: Any) -> BaseException:
    """Returns the exception by which a Trainer ends a training after SIGTERM."""
    modules = (base.__module__.split(".trainer.")[0] for base in type(trainer).__mro__)
    namespace = next((name for name in modules if name in NAMESPACES), None)
    if namespace is None:
        return SystemExit()
    error: BaseException = importlib.import_module(f"{namespace}.utilities.exceptions").SIGTERMException()
    return error


def end_after_others(trainer: Any, own: LightningCallback, exception: BaseException, end: Callable[[], None]) -> None:
    """Calls ``end`` after the hooks ``on_exception`` of all callbacks of other packages, which may save checkpoints.

    Lightning calls the hooks in the order of its list of callbacks, where those that save stand behind ours. It
    iterates over the list itself, so that callbacks that are removed from it are not called a second time. The Trainer
    gets a copy, as checkpoints hold the state of all callbacks. Every hook is called, even if one raises.

    Args:
        trainer: Trainer that calls the hook.
        own: The callback whose hook is running. One that the Trainer does not know calls ``end`` only.
        exception: What ended the training.
        end: Finishes the work of ``own``, and may wait.
    """
    iterated: list[Any] = trainer.callbacks
    place = next((i for i, callback in enumerate(iterated) if callback is own), len(iterated))
    later = iterated[place + 1 :]
    ours = [callback for callback in later if isinstance(callback, LightningCallback)]
    others = [callback for callback in later if not isinstance(callback, LightningCallback)]
    if not others:
        end()
        return
    arranged, trainer.callbacks = list(iterated), list(iterated)
    del iterated[place + 1 :]
    with contextlib.ExitStack() as calls:  # in reverse order
        calls.callback(setattr, trainer, "callbacks", arranged)
        for callback in reversed(ours):
            calls.callback(callback.on_exception, trainer, trainer.lightning_module, exception)
        calls.callback(setattr, trainer, "callbacks", [*others, *iterated, *ours])  # so that ours find none to call
        calls.callback(end)
        for callback in reversed(others):
            calls.callback(callback.on_exception, trainer, trainer.lightning_module, exception)
