"""Trackers of a user's own: which threads write to them, and when they are closed."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
from failing_modules import RaisesInTraining

from rlwandb_callbacks import GradientsCallback, MetricsCallback, WandbRLCallback
from rlwandb_callbacks.core.values import Histogram, Value
from rlwandb_callbacks.testing import MemoryTracker, TinyQ, TinyValidatedQ

CONFIG = {"metrics": {"every_n_steps": 1}, "gradients": {"log_freq": 1}}


class ClosedTracker(MemoryTracker):
    """Records the threads that write, and takes rows only while it is open, which the first row of a training opens."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.writers: set[str] = set()
        self.closers: set[str] = set()

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        super().write(axes, values)
        self.calls.append("write")
        self.writers.add(threading.current_thread().name)

    def flush(self) -> None:
        super().flush()
        self.calls.append("flush")

    def close(self) -> None:
        super().close()
        self.calls.append("close")
        self.closers.add(threading.current_thread().name)


class BoundToItsThread(MemoryTracker):
    """Fails as trackio's module functions do."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("Call trackio.init() before trackio.log().")
        super().write(axes, values)


class WithoutClose:
    """A tracker of two methods."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        self.steps.append(axes["trainer/global_step"])

    def flush(self) -> None:
        pass


def test_a_tracker_gets_rows_from_the_thread_of_histograms_and_is_closed_once_after_all_callbacks(fit: Any) -> None:
    tracker = ClosedTracker()
    parts = [MetricsCallback(CONFIG, tracker=tracker), GradientsCallback(CONFIG, tracker=tracker)]
    trainer = fit(TinyQ(batches=13), *parts)
    assert sum(isinstance(value, Histogram) for row in tracker.rows for value in row.values()) == 13 * (
        4 + 4
    )  # gradients and parameters
    assert tracker.writers - {threading.main_thread().name}
    assert tracker.calls.count("close") == 1
    assert tracker.calls[-2:] == ["flush", "close"]
    assert tracker.closers == {threading.main_thread().name}
    trainer.fit_loop.max_epochs = 2
    trainer.fit(TinyQ(batches=2))
    assert tracker.calls[-1] == "close"
    assert tracker.closes == 2


def test_a_tracker_is_closed_after_an_exception(fit: Any) -> None:
    tracker = ClosedTracker()
    with pytest.raises(RuntimeError, match="boom"):
        fit(RaisesInTraining(), MetricsCallback(CONFIG, tracker=tracker))
    assert tracker.calls[-1] == "close"


@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_a_tracker_that_is_bound_to_its_thread_gets_all_rows_in_order(fit: Any, on_error: str) -> None:
    tracker = BoundToItsThread()
    group = WandbRLCallback({**CONFIG, "on_error": on_error, "gradient_logger": True}, tracker=tracker)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="rlwandb: ")
        fit(TinyQ(batches=13), group)
    assert sum(isinstance(value, Histogram) for row in tracker.rows for value in row.values()) == 13 * (4 + 4)
    steps = tracker.column("trainer/global_step")
    assert steps == sorted(steps)


def test_a_row_that_fails_on_every_thread_is_one_warning_and_costs_no_other(fit: Any) -> None:
    class RefusesHistograms(MemoryTracker):
        def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
            if any(isinstance(value, Histogram) for value in values.values()):
                raise ValueError("no histograms here")
            super().write(axes, values)

    tracker = RefusesHistograms()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(TinyQ(batches=5), GradientsCallback(CONFIG, tracker=tracker))
    (warning,) = [str(each.message) for each in caught if "rlwandb: " in str(each.message)]
    assert warning == "rlwandb: Writing a row failed, and training goes on: ValueError: no histograms here"
    assert tracker.column("logging/errors")[-1] == 5


def test_an_error_of_close_is_one_warning(fit: Any) -> None:
    class Fails(MemoryTracker):
        def close(self) -> None:
            raise OSError("no space left")

    tracker = Fails()
    with pytest.warns(UserWarning, match="Closing the tracker failed, and training goes on: OSError: no space left"):
        fit(TinyQ(batches=2), MetricsCallback(CONFIG, tracker=tracker))
    assert tracker.flushes == 1


def test_a_tracker_without_close_is_used_all_the_same(fit: Any) -> None:
    tracker: Any = WithoutClose()
    fit(TinyValidatedQ(batches=2), MetricsCallback({**CONFIG, "on_error": "raise"}, tracker=tracker))
    assert tracker.steps[-1] == 1
