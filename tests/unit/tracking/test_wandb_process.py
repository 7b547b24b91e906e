"""W&B's own process, and what happens if it does not end."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pytest
import wandb

from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.testing import read_offline_run
from rlwandb_callbacks.tracking.wandb_process import end_process, find_process
from rlwandb_callbacks.tracking.wandb_run import open_run, release_run


def test_the_next_run_has_another_process_and_the_same_settings() -> None:
    wandb.init().finish()
    before, settings = find_process(), wandb.setup().settings
    end_process()
    assert before.poll() == 0
    assert wandb.setup().settings.base_url == settings.base_url
    wandb.init().finish()
    assert find_process().pid != before.pid


@pytest.mark.parametrize("sent", [signal.SIGSTOP, signal.SIGKILL])
def test_a_process_that_cannot_be_told_to_end_is_ended(sent: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.tracking.wandb_process.MAX_END_SECONDS", 0.5)
    wandb.init().finish()
    before = find_process()
    os.kill(before.pid, sent)
    started = time.monotonic()
    end_process()
    assert time.monotonic() - started < 10
    assert before.wait(10) == -signal.SIGKILL
    run = wandb.init()
    run.log({"a": 1})
    run.finish()
    assert find_process().pid != before.pid


def test_a_log_that_cannot_be_written_prints_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    run = open_run(RunConfig())
    handlers = [each for each in logging.getLogger("wandb").handlers if isinstance(each, logging.FileHandler)]
    assert handlers
    with Path("/dev/full").open("w") as full:
        for handler in handlers:
            before = handler.setStream(full)
            handler.emit(logging.makeLogRecord({"msg": "x" * 100_000}))
            handler.setStream(before)
    release_run(run)
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_opens_and_finishes_where_nothing_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    wandb.teardown()  # settings are read once
    monkeypatch.setenv("WANDB_SILENT", "false")
    for method in ("stdout.write", "stdout.flush", "stderr.write", "stderr.flush"):
        monkeypatch.setattr(f"sys.{method}", fail)
    run = open_run(RunConfig())
    with pytest.raises(BrokenPipeError):
        wandb.termlog("W&B prints")
    run.log({"a": 1})
    assert release_run(run) is None
    monkeypatch.undo()
    wandb.teardown()
    local = read_offline_run(Path(run.dir).parent)
    assert (local.column("a"), local.exit_code) == ([1], 0)
