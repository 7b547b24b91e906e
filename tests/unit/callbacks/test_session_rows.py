"""Rows of a session, and what is said about those that are left at the end of a training."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.logging_time import LoggingTimer
from rlwandb_callbacks.callbacks.session_jobs import SessionJobs
from rlwandb_callbacks.callbacks.session_rows import SessionRows
from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.values import Scalar
from rlwandb_callbacks.testing import MemoryTracker
from rlwandb_callbacks.tracking.wait_limit import WaitLimit

AXES = {"trainer/global_step": 4.0}


class SlowDisk(MemoryTracker):
    """Tracker of which two rows with files are never written, and whose first row raises two errors."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [OSError("second file")]

    def write(self, axes: Mapping[str, float], values: Mapping[str, Any]) -> None:
        super().write(axes, values)
        if len(self.rows) == 1:
            raise ValueError("first file")

    def wait(self, limit: WaitLimit) -> int:
        return 2

    def errors(self) -> list[Exception]:
        kept, self.kept = self.kept, []
        return list(kept)


def new_rows(**cfg: Any) -> SessionRows:
    config = WandbRLConfig(**cfg)
    errors = ErrorPolicy(raises=False, timer=LoggingTimer())
    return SessionRows(config, errors, SessionJobs(config, errors))


def warnings_of_flush(rows: SessionRows, limit: WaitLimit) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows.flush(limit)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("limit", "advice"),
    [
        (WaitLimit(600.0), "Set finish_seconds higher to wait for them"),
        (WaitLimit(5.0), "A training that ends by an exception or Ctrl-C waits 5 s at most."),
        (WaitLimit(5.0, is_interrupted=lambda: True), "as the process was told to end (SIGTERM)."),
    ],
)
def test_rows_that_are_lost_are_told_with_the_reason(limit: WaitLimit, advice: str) -> None:
    rows = new_rows()
    rows.tracker = SlowDisk()
    message = warnings_of_flush(rows, limit)[-1]
    assert "rows with tables, pictures or videos were not written before the end of training (2 of them)" in message
    assert advice in message
    assert ("Set finish_seconds" in message) == advice.startswith("Set")


def test_all_errors_of_a_row_count_and_no_later_row_is_lost() -> None:
    rows = new_rows()
    tracker = rows.tracker = SlowDisk()
    rows.add(AXES, {"train/loss": Scalar(1.0)})
    with pytest.warns(UserWarning, match="Writing a row failed, and training goes on: ValueError: first file"):
        rows.add_result({"trainer/global_step": 2.0}, {"eval/a": Scalar(2.0)})
    (warning,) = warnings_of_flush(rows, WaitLimit(1.0))
    assert "(2 of them)" in warning
    assert [row["trainer/global_step"] for row in tracker.rows] == [2.0, 4.0]
    assert tracker.rows[-1]["logging/errors"] == 2


def test_copies_keep_the_names_and_the_step_and_write_nowhere() -> None:
    rows = new_rows(naming="sb3")
    rows.tracker = MemoryTracker("sb3")
    rows.add(AXES, {"train/loss": Scalar(1.0)})
    rows.naming.algorithm = "dqn"
    copy = pickle.loads(pickle.dumps(rows))
    assert (copy.tracker, copy.naming.algorithm, copy.axes) == (None, "dqn", AXES)
    copy.flush(WaitLimit(1.0))
    rows.flush(WaitLimit(1.0))
    assert len(rows.tracker.rows) == 1
