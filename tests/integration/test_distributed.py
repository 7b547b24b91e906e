"""Distributed training: one run, episodes split across ranks, equal metrics on all ranks, and no deadlock."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from rlwandb_callbacks.testing import OfflineRun, read_offline_run

PROGRAM = Path(__file__).parents[1] / "programs" / "distributed.py"
TIME_LIMIT_SECONDS = 240
pytestmark = pytest.mark.timeout(TIME_LIMIT_SECONDS + 30)


def start(*command: Any, **env: Any) -> subprocess.Popen[str]:
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "OMP_NUM_THREADS": "1", "MASTER_PORT": free_port()}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **quiet, **{name: str(value) for name, value in env.items()}},
    )


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def wait_for_output(process: subprocess.Popen[str], status: int | None = 0) -> str:
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the ranks that it has started
    assert status is None or process.returncode == status, output[-3000:]
    return output


def read_single_run() -> OfflineRun:
    assert len(list(Path("wandb").glob("offline-run-*"))) == 1
    return read_offline_run("wandb")


def check_distributed_evaluations(run: OfflineRun) -> None:
    assert run.column("eval/episodes_count") == [5, 5]
    for rate, low, high in zip(*(run.column(f"eval/success_rate{end}") for end in ("", "_low", "_high")), strict=True):
        of_all_ranks = binomtest(round(5 * rate), 5).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((of_all_ranks.low, of_all_ranks.high))
    table = run.media("eval/episodes")[0].read_text()
    assert [row[0] for row in __import__("json").loads(table)["data"]] == [0, 1, 2, 3, 4]
    assert len(run.media("video/best")) == 2
    assert run.exit_code == 0
    assert "logging/errors" not in run.summary


@pytest.mark.parametrize("processes", [2, 3])
def test_episodes_are_split_across_ranks_and_logged_to_one_run(processes: int) -> None:
    output = wait_for_output(start(PROGRAM, "ddp", processes, 1, "plain"))
    run = read_single_run()
    check_distributed_evaluations(run)
    ends = [float(line.split("ends with")[1]) for line in output.splitlines() if "ends with" in line]
    assert ends == pytest.approx([run.column("eval/return_mean")[-1]] * processes)


def test_validate_continues_the_run_of_a_fit_in_spawned_processes() -> None:
    output = wait_for_output(start(PROGRAM, "ddp_spawn", 2, 1, "plain"))
    fit, validate = sorted(Path("wandb").glob("offline-run-*"))
    check_distributed_evaluations(read_offline_run(fit))
    assert fit.name.rpartition("-")[2] == validate.name.rpartition("-")[2]  # the id of the run
    run = read_offline_run(validate)
    assert run.column("eval/return_mean") == read_offline_run(fit).column("eval/return_mean")[-1:]
    assert (run.column("trainer/global_step")[0], run.column("time/updates")[0]) == (7, 8)
    assert f"run folder: {validate.resolve()}" in output


@pytest.mark.parametrize(("scenario", "entropy"), [("plain", 0.0), ("reduced", 0.5)])
def test_metrics_are_taken_from_rank_zero_or_averaged_over_ranks(scenario: str, entropy: float) -> None:
    wait_for_output(start(PROGRAM, "ddp", 2, 1, scenario))
    run = read_single_run()
    assert run.column("train/entropy") == [entropy] * 4
    if scenario == "reduced":  # 10 steps a batch on rank zero, 15 on the other one, and an episode on each
        assert [row["time/env_steps"] for row in run.history if "train/entropy" in row] == [50, 100, 150, 200]
        assert run.column("rollout/return_mean") == [5.0] * 4
        assert run.column("rollout/episodes") == [4] * 4
    assert [row["time/updates"] for row in run.history if "train/entropy" in row] == [2, 4, 6, 8]


def test_two_torchrun_nodes_log_to_one_run() -> None:
    port = free_port()
    nodes = [
        start(
            *("-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={node}", "--nproc_per_node=1"),
            *("--master_addr=127.0.0.1", f"--master_port={port}", PROGRAM, "ddp", 1, 2, "plain"),
            MASTER_PORT=port,
        )
        for node in (0, 1)
    ]
    outputs = [wait_for_output(node) for node in nodes]
    assert all("ends with" in output for output in outputs)
    check_distributed_evaluations(read_single_run())


def test_training_with_unequal_batches_on_the_ranks_ends_as_without_the_callback() -> None:
    output = wait_for_output(start(PROGRAM, "ddp", 2, 1, "unequal"))
    run = read_single_run()
    assert [row["time/updates"] for row in run.history if "eval/return_mean" in row] == [8, 16]
    assert run.column("eval/episodes_count") == [5, 5]
    assert [row["time/env_steps"] for row in run.history if "train/entropy" in row] == list(range(50, 401, 50))
    assert "logging/errors" not in run.summary
    assert len(set(re.findall(r"step 16 ends with (\S+)", output))) == 1
    assert output.count("step 16 ends with") == 2


def test_episodes_of_a_rank_with_a_failing_environment_are_played_by_the_other_one() -> None:
    output = wait_for_output(start(PROGRAM, "ddp", 2, 1, "one"))
    run = read_single_run()
    assert run.column("eval/episodes_count") == [5, 5]
    assert run.summary["logging/errors"] == 2
    assert output.count("ends with") == 2
    assert len(run.column("train/loss")) == 4


def test_episodes_of_a_rank_with_an_environment_that_hangs_are_played_after_the_time_limit() -> None:
    output = wait_for_output(start(PROGRAM, "ddp", 2, 1, "hanging"))
    run = read_single_run()
    assert run.column("eval/episodes_count") == [5, 5]
    assert run.summary["logging/errors"] == 2
    assert output.count("ends with") == 2
    assert len(run.column("train/loss")) == 4


def test_monitored_return_is_known_on_all_ranks_at_the_end_of_each_epoch() -> None:
    output = wait_for_output(start(PROGRAM, "ddp", 2, 1, "monitored"))
    run = read_single_run()
    assert [row["time/updates"] for row in run.history if "eval/return_mean" in row] == [4, 8]
    assert run.column("eval/episodes_count") == [5, 5]
    ends = [float(number) for number in re.findall(r"ends with (\S+)", output)]
    assert ends == pytest.approx([run.column("eval/return_mean")[-1]] * 2)  # the metrics of the Trainer are float32


def test_named_evaluations_and_moved_keys_are_the_same_on_all_ranks() -> None:
    output = wait_for_output(start(PROGRAM, "ddp", 2, 1, "named"))
    run = read_single_run()
    ours = run.column("eval_rl/near/return_mean")
    assert (len(ours), run.column("eval/near/return_mean")) == (2, [])  # the module has no logger
    assert [len(run.column(key)) for key in ("eval/far/return_mean", "q/near/mean", "q/far/mean")] == [2, 2, 2]
    assert run.column("eval/far/episodes_count") == [5, 5]
    ends = [float(number) for number in re.findall(r"ends with -7.0 and (\S+)", output)]
    assert ends == pytest.approx([ours[-1]] * 2)  # the metrics of the Trainer are float32


def test_environments_that_fail_on_all_ranks_do_not_stop_training() -> None:
    output = wait_for_output(start(PROGRAM, "ddp", 2, 1, "all"), status=None)
    assert len(read_single_run().column("train/loss")) == 4
    assert "eval/return_mean" not in read_single_run().summary
    assert "KeyError" in output  # after training, the program reads a metric that does not exist


def test_environment_that_cannot_be_created_on_one_rank_stops_all_ranks_before_the_first_step() -> None:
    output = wait_for_output(start(PROGRAM, "ddp", 2, 1, "unmade"), status=1)
    assert output.count("no license for rank one") >= 2
    assert "ends with" not in output


def test_frames_of_other_ranks_are_used_if_episodes_cannot_be_replayed() -> None:
    wait_for_output(start(PROGRAM, "ddp", 2, 1, "restless"))
    run = read_single_run()
    assert [len(run.media(f"video/{label}")) for label in ("best", "median", "worst")] == [2, 2, 2]
    assert run.column("eval/episodes_count") == [5, 5]


def test_unpicklable_error_on_rank_zero_is_handled_on_all_ranks() -> None:
    output = wait_for_output(start(PROGRAM, "ddp", 2, 1, "choosy"))
    assert output.count("ends with") == 2
    run = read_single_run()
    assert run.column("eval/episodes_count") == [5, 5]
    assert run.column("logging/errors") == [1, 2]
    assert run.media("video/best") == []


def test_episodes_returned_by_the_module_on_one_rank_are_used_on_all_ranks() -> None:
    output = wait_for_output(start(PROGRAM, "ddp", 2, 1, "uneven"))
    assert read_single_run().column("eval/episodes_count") == [1, 1]
    assert output.count("ends with 3.0") == 2
