from __future__ import annotations

import errno
import warnings

import pytest

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.logging_time import LoggingTimer


def test_an_error_without_a_message_is_reported_with_the_line_that_raised_it() -> None:
    policy = ErrorPolicy(raises=False, timer=LoggingTimer())
    with (
        pytest.warns(
            UserWarning, match=r"goes on: AssertionError in test_error_policy.py, line \d+: raise AssertionError"
        ),
        policy.guard("The evaluation"),
    ):
        raise AssertionError
    assert policy.count == 1


def test_one_cause_is_one_warning_whatever_work_it_stops() -> None:
    policy = ErrorPolicy(raises=False, timer=LoggingTimer())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for what in ("Writing a row", "Drawing the evaluation", "Finishing"):
            policy.report_error(what, OSError(errno.ENOSPC, "No space left on device", f"/full/{what}"))
        policy.report_error("Writing a row", ValueError("boom"))
        policy.report_error("Drawing the evaluation", ValueError("boom"))
    assert policy.count == 5
    first, *others = [str(warning.message) for warning in caught]
    assert first.startswith("rlwandb: Writing a row failed, and training goes on: OSError: [Errno 28] No space left on")
    assert first.endswith(
        "The disk is full: free space, or set run.dir, record_path or TMPDIR to a folder that has room. While the disk "
        "of the run's folder is full, numbers are lost too."
    )
    assert others == [
        "rlwandb: Writing a row failed, and training goes on: ValueError: boom",
        "rlwandb: Drawing the evaluation failed, and training goes on: ValueError: boom",
    ]


def test_an_error_that_says_what_to_do_gets_no_second_remedy() -> None:
    policy = ErrorPolicy(raises=False, timer=LoggingTimer())
    error = OSError("Read-only file system. Set record_path to a folder that you may write to.")
    error.__cause__ = OSError(errno.EROFS, "Read-only file system")
    with pytest.warns(UserWarning, match="Set record_path to a folder that you may write to.$"):
        policy.report_error("Recording", error)
