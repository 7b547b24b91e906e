"""Long trainings hold no more than short ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resources import WatchesResources

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ, read_offline_run

LONG = (pytest.mark.long, pytest.mark.timeout(6_000))
MAX_GROWTH_BYTES = 40 * 2**20
FEW = 3  # of what comes and goes


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what is held from Linux's /proc")
@pytest.mark.parametrize("evaluations", [15, pytest.param(1_000, marks=LONG)])
def test_evaluations_with_videos_hold_no_more_memory_files_threads_or_processes(fit: Any, evaluations: int) -> None:
    watch = WatchesResources(every_n_validations=evaluations // 5)
    callback = WandbRLCallback(
        executor="process",
        queue_full="wait",
        queue_size=2,
        gradient_logger=True,
        env=CorridorEnv,
        policy="q_network",
        evaluation={"episodes": 1},
        videos={"select": ["best"]},
        on_error="raise",
    )
    fit(TinyValidatedQ(batches=evaluations), callback, watch, val_check_interval=1, num_sanity_val_steps=0)
    early, *_, late = watch.seen[1:]
    assert late.files <= early.files + FEW, "one for each evaluation would be many more"
    assert late.threads <= early.threads + FEW
    assert late.children <= early.children + FEW
    assert late.memory_bytes - early.memory_bytes < MAX_GROWTH_BYTES
    run = read_offline_run("wandb")
    assert len(run.column("eval/return_mean")) == len(run.column("video/best")) == evaluations


def test_runs_of_a_sweep_in_one_process_are_complete_and_leave_nothing(fit: Any) -> None:
    held = []
    for index in range(4):
        watch = WatchesResources(every_n_validations=1)
        callback = WandbRLCallback(
            env=CorridorEnv, policy="q_network", metrics={"every_n_steps": 2}, run={"id": f"sweep{index}"}
        )
        fit(TinyValidatedQ(), callback, watch)
        held += watch.seen
        run = read_offline_run(callback.run_folder)
        assert callback.run_folder.name.endswith(f"sweep{index}")
        assert run.exit_code == 0
        assert len(run.column("train/loss")) == 4
        assert len(run.column("video/best")) == 1
    assert held[3].files <= held[1].files + FEW
    assert held[3].threads <= held[1].threads + FEW
    assert held[3].children <= held[1].children + FEW
