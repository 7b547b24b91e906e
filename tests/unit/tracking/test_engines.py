"""Habits of Dask and Ray, in stand-ins that show the same behavior."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.values import Scalar
from rlwandb_callbacks.errors import name_and_message
from rlwandb_callbacks.tracking import engines
from rlwandb_callbacks.tracking.engines import WorkerWatch
from rlwandb_callbacks.tracking.job_queue import JobQueue
from rlwandb_callbacks.tracking.result import Result


def count(file: Path) -> dict[str, Any]:
    """Adds a letter to a file, and returns how many it has."""
    with file.open("a") as stream:
        stream.write("x")
    return {"eval/runs": Scalar(float(len(file.read_text())))}


def get_pid() -> dict[str, Any]:
    return {"eval/pid": Scalar(float(os.getpid()))}


def double(frames: np.ndarray) -> dict[str, Any]:
    frames *= 2
    return {"eval/frames": frames}


class Engine(Executor):
    """Runs work at once, and answers equal submissions from the earlier future, as Dask does."""

    def __init__(self, client: Any = None) -> None:
        self.futures: dict[bytes, Future[Any]] = {}
        self._client = client

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        key = pickle.dumps((work, args, kwargs))
        if key not in self.futures:
            self.futures[key] = future = Future()
            self.run(future, partial(work, *args, **kwargs))
        return self.futures[key]

    def run(self, future: Future[Any], work: Callable[[], Any]) -> None:
        future.set_result(work())


class WithoutWorkers(Engine):
    """Never runs its work, as a cluster without workers."""

    def run(self, future: Future[Any], work: Callable[[], Any]) -> None:
        pass


class RayTaskError(Exception):
    """Error with the colors and the cause that Ray's errors have."""

    cause = ModuleNotFoundError("No module named 'my_env'")


class FailsLikeRay(Engine):
    def run(self, future: Future[Any], work: Callable[[], Any]) -> None:
        future.set_exception(RayTaskError("\x1b[36mray::run_packed()\x1b[39m (pid=7, ip=192.0.2.2)\n  File ..."))


def client(*states: str, reported: int = 0, has_cluster: bool = True) -> Any:
    """Returns a client of a cluster whose workers have these states, and of which the scheduler reports so many."""
    workers = {number: SimpleNamespace(status=SimpleNamespace(name=state)) for number, state in enumerate(states)}
    cluster = SimpleNamespace(workers=workers) if has_cluster else None
    return SimpleNamespace(cluster=cluster, _scheduler_identity={"n_workers": reported, "workers": {}})


@pytest.fixture
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_SECONDS", "CLOSED_SECONDS", "SCALED_DOWN_SECONDS", "UNKNOWN_SECONDS"):
        monkeypatch.setattr(engines, name, 0.0)


def test_equal_jobs_run_each_time_on_an_engine_that_answers_from_earlier_futures(tmp_path: Path) -> None:
    results: list[Result] = []
    queue = JobQueue(Engine())
    for _ in range(3):
        queue.submit([partial(count, tmp_path / "runs")], results.append)
    assert [result.values["eval/runs"] for result in results] == [Scalar(1.0), Scalar(2.0), Scalar(3.0)]


def test_arrays_may_be_changed_by_jobs_and_in_results() -> None:
    results: list[Result] = []
    JobQueue(Engine()).submit([partial(double, np.ones(1000))], results.append)
    frames = results[0].values["eval/frames"]
    assert isinstance(frames, np.ndarray)
    frames += 1
    assert frames.sum() == 3000


@pytest.mark.parametrize(
    "lost",
    [
        client("closing_gracefully", "closed", reported=2),  # after Ctrl-C; the report is of before
        client(),  # scaled to zero
        client(has_cluster=False),  # a client by the address of a scheduler
    ],
)
def test_work_of_an_engine_that_lost_its_workers_is_done_by_a_worker_process(lost: Any, without_patience: None) -> None:
    results: list[Result] = []
    reasons: list[Exception] = []
    queue = JobQueue(WithoutWorkers(lost), on_executor_failure=reasons.append)
    for _ in range(2):
        queue.submit([get_pid], results.append)
    start = time.monotonic()
    assert queue.finish(120) == 0
    assert time.monotonic() - start < 60
    pids = {result.values["eval/pid"] for result in results}
    assert len(results) == 2
    assert len(pids) == 1
    assert Scalar(float(os.getpid())) not in pids
    assert {str(reason) for reason in reasons} == {"its cluster has no workers any more, and none has come back"}


@pytest.mark.parametrize(
    "present",
    [
        client("closed", "running"),
        client("created", "init"),  # a queue of a computing center will start them
        client(reported=1),
        client(has_cluster=False, reported=4),
        SimpleNamespace(),  # of another engine
        None,
    ],
)
def test_engines_with_workers_or_of_an_unknown_kind_are_waited_for(present: Any, without_patience: None) -> None:
    watch = WorkerWatch(WithoutWorkers(present))
    assert [watch.lost_reason() for _ in range(3)] == ["", "", ""]


def test_workers_that_come_back_in_time_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LOOK_SECONDS", 0.0)
    restarted = client(has_cluster=False)
    watch = WorkerWatch(WithoutWorkers(restarted))
    assert not watch.lost_reason()
    restarted._scheduler_identity["n_workers"] = 1
    assert not watch.lost_reason()
    monkeypatch.setattr(engines, "UNKNOWN_SECONDS", 0.0)
    assert not watch.lost_reason()
    restarted._scheduler_identity["n_workers"] = 0
    assert watch.lost_reason()


def test_the_cause_inside_an_error_of_an_engine_is_told_without_escape_characters() -> None:
    results: list[Result] = []
    reasons: list[Exception] = []
    queue = JobQueue(FailsLikeRay(), on_executor_failure=reasons.append)
    queue.submit([get_pid], results.append)
    assert queue.finish(120) == 0
    assert [name_and_message(reason) for reason in reasons] == ["ModuleNotFoundError: No module named 'my_env'"]
    assert name_and_message(RuntimeError("\x1b[36mray::f()\x1b[39m failed")) == "RuntimeError: ray::f() failed"
    assert "eval/pid" in results[0].values


@pytest.mark.long
def test_videos_of_a_dask_cluster_whose_workers_got_ctrl_c_are_made() -> None:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    results: list[Result] = []
    reasons: list[Exception] = []
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as dask_client:
        (worker,) = dask_client.run(os.getpid).values()
        os.kill(worker, signal.SIGINT)
        deadline = time.monotonic() + 60
        while dask_client.nthreads() and time.monotonic() < deadline:
            time.sleep(0.1)
        queue = JobQueue(dask_client.get_executor(), on_executor_failure=reasons.append)
        queue.submit([get_pid], results.append)
        assert queue.finish(120) == 0
    assert "eval/pid" in results[0].values
    assert results[0].values["eval/pid"] != Scalar(float(worker))
    assert reasons
