"""Waiting for a run that does not finish."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import wandb

from rlwandb_callbacks.tracking.finishing import finish_run
from rlwandb_callbacks.tracking.wait_limit import WaitLimit


class HangingRun:
    """Run whose ``finish`` returns when the test is over."""

    id = "hanging"

    def __init__(self) -> None:
        self.over = threading.Event()

    def finish(self, exit_code: int) -> None:
        self.over.wait(60)


@pytest.fixture
def hanging_run() -> Iterator[HangingRun]:
    run = HangingRun()
    yield run
    run.over.set()


@pytest.mark.parametrize("limit", [WaitLimit(0.0), WaitLimit(600.0, is_interrupted=lambda: True)])
def test_little_is_waited_if_no_time_is_left(
    hanging_run: HangingRun, limit: WaitLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlwandb_callbacks.tracking.finishing.MIN_SECONDS", 0.3)
    started = time.monotonic()
    assert not finish_run(hanging_run, 0, limit)
    assert 0.3 <= time.monotonic() - started < 10


def test_sigterm_ends_a_long_wait(hanging_run: HangingRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.tracking.finishing.MIN_SECONDS", 0.1)
    signal = threading.Event()
    threading.Timer(0.5, signal.set).start()
    started = time.monotonic()
    assert not finish_run(hanging_run, 0, WaitLimit(600.0, is_interrupted=signal.is_set))
    assert 0.5 <= time.monotonic() - started < 10


def test_run_that_finishes_late_is_waited_for(hanging_run: HangingRun) -> None:
    threading.Timer(0.5, hanging_run.over.set).start()
    assert finish_run(hanging_run, 0, WaitLimit(600.0))


def test_nothing_is_reported_about_wandb_once_a_run_is_given_up(
    hanging_run: HangingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = pytest.importorskip("wandb.analytics.opentelemetry.opentelemetry_proxy")
    monkeypatch.setattr(telemetry, "_disabled", threading.Event())
    monkeypatch.setattr("rlwandb_callbacks.tracking.finishing.MIN_SECONDS", 0.1)
    assert not finish_run(hanging_run, 0, WaitLimit(0.0))
    assert telemetry._disabled.is_set()


def test_a_run_that_cannot_finish_is_not_used_again() -> None:
    run = wandb.init()
    wandb.teardown()
    with pytest.raises(Exception, match=r"loop|join"):
        finish_run(run, 0, WaitLimit(600.0))
    assert wandb.run is None
