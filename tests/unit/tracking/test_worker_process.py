"""What the worker process does for environments: their own processes, settings before imports, and how it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
from functools import partial
from typing import Any

import gymnasium as gym
import pytest

from rlwandb_callbacks.testing import CorridorEnv
from rlwandb_callbacks.tracking.job_queue import JobQueue
from rlwandb_callbacks.tracking.result import Result
from rlwandb_callbacks.tracking.worker_process import WorkerDiedError


@pytest.fixture
def results() -> list[Result]:
    return []


def run(job: Any, results: list[Result], **options: Any) -> Result:
    queue = JobQueue("process", **options)
    queue.submit([job], results.append)
    assert queue.finish(120) == 0
    return results[-1]


def step_vector() -> dict[str, Any]:
    envs = gym.vector.AsyncVectorEnv([CorridorEnv] * 2)
    observations, _ = envs.reset(seed=3)
    envs.close()
    return {"shape": observations.shape}


def answer(connection: Any) -> None:
    connection.send(os.getpid())


def start_process() -> dict[str, Any]:
    ours, theirs = multiprocessing.Pipe()
    # Most environments start processes with arguments that only a fork takes.
    process = multiprocessing.Process(target=lambda: answer(theirs))
    process.start()
    pid = ours.recv()
    process.join()
    return {"is_other": pid != os.getpid()}


def test_environments_of_a_job_may_start_processes(results: list[Result]) -> None:
    vector = run(step_vector, results)
    assert vector.error is None
    assert vector.values == {"shape": (2, *CorridorEnv().observation_space.shape)}
    assert run(start_process, results).values == {"is_other": True}


class ReadsAtImport:
    """Job whose unpickling reads an environment variable, as the import of a package may."""

    def __reduce__(self) -> Any:
        return _read_variable, ()


def _read_variable() -> Any:
    return partial(dict, found=os.environ.get("PREPARED"))


def set_variable() -> None:
    os.environ["PREPARED"] = "yes"


def test_the_worker_is_prepared_before_it_unpickles_a_job(results: list[Result]) -> None:
    assert run(ReadsAtImport(), results, prepare=set_variable).values == {"found": "yes"}
    assert "PREPARED" not in os.environ


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("job", "fragments"),
    [
        (partial(end_by, signal.SIGABRT), ["SIGABRT", "compiled code failed"]),
        (partial(end_by, signal.SIGKILL), ["SIGKILL", "no memory"]),
        (partial(os._exit, 3), ["exit code 3", "code in it ended the process"]),
    ],
)
def test_what_ended_the_worker_is_named(results: list[Result], job: Any, fragments: list[str]) -> None:
    error = run(job, results).error
    assert isinstance(error, WorkerDiedError)
    assert all(fragment in str(error) for fragment in fragments)


def test_an_executor_that_names_no_signal_is_quoted() -> None:
    error = WorkerDiedError.from_executor(RuntimeError("A process was terminated abruptly."))
    assert str(error) == "The worker process ended: A process was terminated abruptly."
