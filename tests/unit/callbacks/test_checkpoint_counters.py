from __future__ import annotations

import datetime as dt
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlwandb_callbacks.callbacks.checkpoint_counters import read_counters

OURS = {"updates": 8, "global_step": 7, "env_steps": 80}


class Creates:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def saved(folder: Path, **entries: Any) -> str:
    """Saves a checkpoint as Lightning does."""
    loops = {"fit_loop": {"epoch_loop.state_dict": {"_batches_that_stepped": entries.pop("stepped", 20)}}}
    path = folder / "saved.ckpt"
    torch.save({"global_step": 20, "state_dict": torch.nn.Linear(3, 3).state_dict(), "loops": loops, **entries}, path)
    return str(path)


@pytest.mark.parametrize(
    "callbacks",
    [
        {"rlwandb_callbacks.EvaluationCallback": OURS},
        {"rlwandb_callbacks.WandbRLCallback": {"rlwandb_callbacks.MetricsCallback": OURS}},
        {"Timer": {"updates": 1}, "rlwandb_callbacks.WandbRLCallback": {"rlwandb_callbacks.MetricsCallback": OURS}},
    ],
)
def test_counters_of_one_callback_or_of_a_group(tmp_path: Path, callbacks: dict[str, Any]) -> None:
    assert read_counters(saved(tmp_path, callbacks=callbacks)) == OURS


def test_counters_of_an_earlier_version_have_the_step_of_lightning(tmp_path: Path) -> None:
    path = saved(tmp_path, callbacks={"rlwandb_callbacks.MetricsCallback": {"updates": 20}})
    assert read_counters(path) == {"updates": 20, "global_step": 19}


@pytest.mark.parametrize(("stepped", "optimizer_steps", "step"), [(20, 20, 19), (19, 20, 19), (9, 20, 9), (0, 0, 0)])
def test_a_checkpoint_of_others(tmp_path: Path, stepped: int, optimizer_steps: int, step: int) -> None:
    counters = read_counters(saved(tmp_path, stepped=stepped, global_step=optimizer_steps))
    assert counters == {"updates": step + bool(optimizer_steps), "global_step": step}


def test_objects_of_all_kinds_are_passed_over_and_not_made(tmp_path: Path) -> None:
    numbers: defaultdict[str, list[int]] = defaultdict(list, a=[1, 2])
    mine = [Creates(tmp_path / "made"), numbers, deque([1]), {Path("a")}, dt.date(2026, 1, 1), np.ones(3), 1j]
    path = saved(tmp_path, mine=mine, callbacks={"rlwandb_callbacks.MetricsCallback": OURS}, dtype=torch.float32)
    assert read_counters(path) == OURS
    assert not (tmp_path / "made").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match=r"text\.ckpt is not a checkpoint that torch\.save has written"):
        read_counters(str(tmp_path / "text.ckpt"))
    with pytest.raises(ValueError, match="no 'global_step'"):
        read_counters(str(tmp_path / "list.ckpt"))
    with pytest.raises(OSError, match=r"missing\.ckpt"):
        read_counters(str(tmp_path / "missing.ckpt"))
