"""Rows that the user logs with ``step=`` beside ours, read back from the file of an offline run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wandb

from rlwandb_callbacks.core.values import Histogram, Scalar
from rlwandb_callbacks.testing import read_offline_run
from rlwandb_callbacks.tracking.dropped_rows import HOOK
from rlwandb_callbacks.tracking.wandb_tracker import WandbTracker


class Beside:
    """A run with rows of the user and of a tracker."""

    def __init__(self) -> None:
        self.run: Any = wandb.init()
        self.tracker = WandbTracker(self.run, step_metric="trainer/global_step")

    def ours(self, step: int) -> None:
        self.tracker.write({"trainer/global_step": step}, {"train/loss": Scalar(1.0)})

    def kept(self) -> list[Any]:
        self.tracker.flush()
        self.run.finish()
        return read_offline_run(Path(self.run.dir).parent).column("mine")


def test_a_row_of_ours_between_two_rows_of_the_user_drops_none() -> None:
    beside = Beside()
    for step in range(10):
        wandb.log({"mine": step}, step=step)
        beside.ours(step)
    assert beside.tracker.dropped_row() is None
    assert beside.kept() == list(range(10))


def test_a_dropped_row_is_noticed_and_described() -> None:
    beside = Beside()
    beside.run.log({"mine": 0}, step=0)
    beside.ours(0)
    beside.ours(1)
    beside.run.log({"mine": 1, "also": 2}, step=1)
    message = beside.tracker.dropped_row()
    assert message is not None
    assert "'mine', 'also' that your code logged with step=1" in message
    assert "W&B's own step to 2" in message
    assert "wandb.log({..., 'my_step': 1})" in message
    assert beside.kept() == [0]


def test_rows_that_the_users_own_steps_drop_are_not_blamed_on_ours() -> None:
    beside = Beside()
    beside.run.log({"mine": 0}, step=5)
    beside.ours(0)
    beside.run.log({"mine": 1}, step=3)
    assert beside.tracker.dropped_row() is None
    assert beside.kept() == [0]


@pytest.mark.parametrize("commit", [True, None])
def test_rows_without_a_step_count_too(commit: bool | None) -> None:
    beside = Beside()
    for number in range(3):
        beside.run.log({"mine": number}, commit=commit)
    beside.ours(0)
    beside.run.log({"mine": 3}, step=2)  # the user's three rows alone would have dropped it
    assert beside.tracker.dropped_row() is None
    assert beside.kept() == [0, 1, 2]


def test_the_run_is_as_it_was_afterwards() -> None:
    beside = Beside()
    assert HOOK in vars(beside.run)
    beside.tracker.flush()
    assert HOOK not in vars(beside.run)
    beside.run.log({"mine": 1})
    assert beside.kept() == [1]


def test_two_trackers_of_one_run_do_not_blame_each_other() -> None:
    beside = Beside()
    other = WandbTracker(beside.run, step_metric="trainer/global_step")
    for step in range(3):
        wandb.log({"mine": step}, step=step)
        other.write({"trainer/global_step": step}, {"eval/a": Scalar(1.0)})
    assert (beside.tracker.dropped_row(), other.dropped_row()) == (None, None)
    beside.tracker.flush()
    other.flush()
    assert HOOK not in vars(beside.run)
    assert beside.kept() == [0, 1, 2]


def test_a_value_that_cannot_be_written_costs_no_other() -> None:
    beside = Beside()
    broken = Histogram(None, None)  # type: ignore[arg-type]  # no histogram
    with pytest.raises(AttributeError):
        beside.tracker.write({"trainer/global_step": 1}, {"a/broken": broken, "mine": Scalar(2.0)})
    assert beside.kept() == [2.0]
