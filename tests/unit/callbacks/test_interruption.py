"""The order in which callbacks end after an exception, and how long they may wait."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from rlwandb_callbacks import CallbackGroup, MetricsCallback
from rlwandb_callbacks.callbacks.interruption import EXCEPTION_SECONDS, limited_end, sigterm_exception
from rlwandb_callbacks.testing import MemoryTracker, TinyQ


class Notes(pl.Callback):
    """Callback that notes the calls of its hook, and the callbacks of the Trainer at that time."""

    def __init__(self, name: str, calls: list[str], error: Exception | None = None) -> None:
        self.name, self.calls, self.error = name, calls, error

    @property
    def state_key(self) -> str:
        return self.name

    def on_exception(self, trainer: Any, *_: Any) -> None:
        self.calls.append(self.name)
        self.callbacks = list(trainer.callbacks)
        if self.error is not None:
            raise self.error


class NotesEnd(MetricsCallback):
    """One of our callbacks that notes when it ends."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__(tracker=MemoryTracker())
        self.name, self.calls = name, calls

    @property
    def state_key(self) -> str:
        return self.name

    def finish(self, *_: Any) -> None:
        self.calls.append(self.name)


class Raises(TinyQ):
    """Module whose training raises an error."""

    def training_step(self, *_: Any) -> Any:
        raise RuntimeError("boom")


def trained(fit: Callable[..., Any], *callbacks: Any) -> pl.Trainer:
    trainers: list[pl.Trainer] = []
    spy = Notes("spy", [])
    spy.setup = lambda trainer, *_, **__: trainers.append(trainer)  # type: ignore[method-assign, assignment]
    with pytest.raises((RuntimeError, OSError)):
        fit(Raises(), spy, *callbacks)
    return trainers[0]


def test_other_callbacks_end_before_ours_and_each_once(fit: Any) -> None:
    calls: list[str] = []
    note, end = partial(Notes, calls=calls), partial(NotesEnd, calls=calls)
    callbacks = [note("a"), end("1"), note("b"), CallbackGroup([end("2"), end("3")]), note("c"), end("4"), note("d")]
    trainer = trained(fit, *callbacks)
    assert calls == ["a", "b", "c", "d", "1", "2", "3", "4"]
    assert trainer.callbacks[1:] == callbacks


def test_a_checkpoint_that_is_saved_then_has_all_callbacks(fit: Any) -> None:
    saves = Notes("saves", [])
    callbacks = [NotesEnd("1", []), Notes("a", []), NotesEnd("2", []), saves]
    trained(fit, *callbacks)
    assert saves.callbacks[1:] == callbacks


def test_ours_end_although_the_hook_of_another_callback_raises(fit: Any) -> None:
    calls: list[str] = []
    full = Notes("a", calls, OSError("no space left"))
    trainer = trained(fit, NotesEnd("1", calls), full, Notes("b", calls), NotesEnd("2", calls))
    assert calls == ["a", "b", "1", "2"]
    assert [type(each).__name__ for each in trainer.callbacks[1:]] == ["NotesEnd", "Notes", "Notes", "NotesEnd"]


def test_a_training_that_ends_well_may_wait_for_finish_seconds() -> None:
    with limited_end(None, 600.0) as limit:
        assert 590 < limit.seconds_left() <= 600


def test_an_exception_may_wait_a_few_seconds() -> None:
    with limited_end(None, 600.0, RuntimeError()) as limit, limited_end(None, 0.5, KeyboardInterrupt()) as shorter:
        assert 0 < limit.seconds_left() <= EXCEPTION_SECONDS
        assert shorter.seconds_left() <= 0.5


@pytest.mark.parametrize("exception", [None, RuntimeError(), KeyboardInterrupt()])
def test_nothing_waits_after_sigterm(exception: Any, fit: Any) -> None:
    limits = []

    class Terminates(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            with limited_end(trainer, 600.0, exception) as limit:
                assert limit.seconds_left() > 0
                os.kill(os.getpid(), signal.SIGTERM)
                limits.append(limit)

    with pytest.raises(SIGTERMException):
        fit(TinyQ(), Terminates())
    assert limits[0].seconds_left() == limits[0].turn_seconds() == 0
    with limited_end(None, 600.0, SIGTERMException()) as limit:
        assert limit.seconds_left() == 0


def test_a_handler_of_the_user_is_called_at_once_and_restored() -> None:
    calls: list[int] = []

    def handler(number: int, _: Any) -> None:
        calls.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with limited_end(None, 600.0) as limit:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (calls, limit.seconds_left()) == ([signal.SIGTERM], 0)
        assert signal.getsignal(signal.SIGTERM) is handler
        assert calls == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with limited_end(None, 600.0) as limit:
            os.kill(os.getpid(), signal.SIGTERM)
            assert limit.seconds_left() > 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_thread_sets_no_handlers() -> None:
    seconds: list[float] = []

    def wait() -> None:
        with limited_end(None, 600.0) as limit:
            seconds.append(limit.seconds_left())

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(20)
    assert len(seconds) == 1


@pytest.mark.parametrize("library", [pl, lightning.pytorch])
def test_sigterm_exception_is_that_of_the_trainer(library: Any) -> None:
    class OwnTrainer(library.Trainer):  # type: ignore[misc]  # class of a parameter
        pass

    trainer = OwnTrainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    error = sigterm_exception(trainer)
    assert type(error).__module__ == f"{library.__name__}.utilities.exceptions"
    assert isinstance(error, SystemExit)
    assert type(sigterm_exception(object())) is SystemExit
