"""Causes of errors, as they are raised by the real thing."""

from __future__ import annotations

import contextlib
import errno
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import wandb

from rlwandb_callbacks.callbacks.failure_causes import (
    DISK_FULL,
    FILE_TOO_LARGE,
    NOT_WRITABLE,
    RUN_FINISHED,
    TOO_MANY_FILES,
    find_cause,
)


def test_a_full_disk_is_recognized() -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        Path("/dev/full").write_bytes(b"x")
    assert find_cause(raised.value) is DISK_FULL


def test_the_cause_of_an_error_behind_an_error_counts() -> None:
    error = RuntimeError("the video could not be written")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert find_cause(error) is DISK_FULL
    error.__cause__.__cause__ = error  # a circle of errors has an end
    assert find_cause(error) is DISK_FULL


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("No space left on device", DISK_FULL),
        ("[Errno 27] File too large", FILE_TOO_LARGE),
        ("Read-only file system", NOT_WRITABLE),
    ],
)
def test_the_text_of_a_program_or_of_another_process_may_name_the_cause(text: str, cause: Any) -> None:
    assert find_cause(OSError(f"ffmpeg: video.mp4: {text}")) is cause


def test_a_row_of_a_finished_run_is_recognized() -> None:
    run: Any = wandb.init()
    run.finish()
    with pytest.raises(wandb.Error) as raised:
        run.log({"a": 1})
    assert find_cause(raised.value) is RUN_FINISHED


def test_a_run_without_its_process_after_wandb_teardown_is_recognized() -> None:
    run: Any = wandb.init()
    wandb.teardown()
    for write in (partial(run.log, {"a": 1}), run.finish):
        with pytest.raises(Exception, match=r"loop|join") as raised:
            write()
        assert find_cause(raised.value) is RUN_FINISHED


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EROFS, NOT_WRITABLE),
        (errno.EDQUOT, DISK_FULL),
        (errno.EMFILE, TOO_MANY_FILES),
        (errno.EFBIG, FILE_TOO_LARGE),
    ],
)
def test_numbers_of_the_operating_system_are_recognized(number: int, cause: Any) -> None:
    assert find_cause(OSError(number, "text")) is cause


def test_a_folder_counts_as_not_writable_only_if_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "missing" / "a.png"))
    assert find_cause(error) is None
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    assert find_cause(error) is NOT_WRITABLE
    assert find_cause(PermissionError("operation not permitted")) is None


def test_the_connection_of_an_environment_is_not_taken_for_that_of_wandb() -> None:
    near, far = socket.socketpair()
    far.close()
    with contextlib.closing(near), pytest.raises(BrokenPipeError) as raised:
        near.sendall(b"x")
    assert find_cause(raised.value) is None


@pytest.mark.parametrize("error", [ValueError("boom"), KeyError(), OSError("text"), wandb.Error("other")])
def test_other_errors_have_no_known_cause(error: Exception) -> None:
    assert find_cause(error) is None
