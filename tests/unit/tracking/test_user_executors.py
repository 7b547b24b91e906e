"""Executors of the user that break, cancel, fail or end their processes cost no job that can still be run."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import loky
import pytest

from rlwandb_callbacks.testing import CorridorEnv
from rlwandb_callbacks.tracking.job_queue import JobQueue
from rlwandb_callbacks.tracking.result import Result
from rlwandb_callbacks.tracking.worker_process import JobCancelledError, WorkerDiedError


class LicenseError(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


class StopEverything(BaseException):
    """Pickles, and does not unpickle; no Exception."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


class FailsToClose(CorridorEnv):
    """Environment whose close() fails."""

    error: type[BaseException] = LicenseError

    def close(self) -> None:
        raise self.error(3, "the license server is away")


class StopsInClose(FailsToClose):
    error = StopEverything


def play(make_env: Callable[[], Any]) -> dict[str, Any]:
    env = make_env()
    env.reset(seed=0)
    env.close()
    return {"played": True}


def give(**values: Any) -> dict[str, Any]:
    return values


def get_pid() -> dict[str, Any]:
    return {"pid": os.getpid()}


def end_by(number: int, notes: Path, text: str) -> dict[str, Any]:
    with notes.open("a") as stream:
        stream.write(text)
    os.kill(os.getpid(), number)
    return {}


@pytest.fixture
def results() -> list[Result]:
    return []


@pytest.fixture
def reasons() -> list[Exception]:
    return []


@pytest.fixture
def new_queue(reasons: list[Exception]) -> Iterator[Callable[..., JobQueue]]:
    made: list[Any] = []

    def new(executor: Any) -> JobQueue:
        queue = JobQueue(executor, queue_size=9, on_executor_failure=reasons.append)
        made.extend([queue, executor])
        return queue

    yield new
    for each in made:
        if isinstance(each, JobQueue):
            each.close()
        elif isinstance(each, Executor):
            each.shutdown()


def new_executor(kind: str) -> Any:
    if kind == "spawn pool":
        return ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    if kind == "loky":
        return loky.ProcessPoolExecutor(1)
    return ThreadPoolExecutor(1) if kind == "thread pool" else kind


def kill_processes(executor: Any) -> None:
    executor.submit(int).result(60)  # it has started
    for process in list(executor._processes.values()):
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["inline", "thread", "process", "thread pool", "spawn pool", "loky"])
def test_an_environment_whose_close_fails_costs_its_own_job_and_is_told(
    new_queue: Any, results: list[Result], kind: str
) -> None:
    queue = new_queue(new_executor(kind))
    queue.submit([partial(give, before=1), partial(play, FailsToClose), partial(give, after=2)], results.append)
    if kind not in ("inline", "thread", "thread pool"):  # the training's own process may be meant to end
        queue.submit([partial(play, StopsInClose)], results.append)
    queue.submit([partial(give, later=3)], results.append)
    assert queue.finish(120) == 0
    assert results[0].values == {"before": 1, "after": 2}
    assert str(results[0].error).endswith("the license server is away")
    assert all(str(result.error) == "StopEverything: the license server is away" for result in results[1:-1])
    assert results[-1] == Result({"later": 3})


@pytest.mark.parametrize("kind", ["spawn pool", "loky"])
def test_a_killed_process_costs_no_job_and_one_reason_is_told(
    new_queue: Any, results: list[Result], reasons: list[Exception], kind: str
) -> None:
    executor = new_executor(kind)
    queue = new_queue(executor)
    queue.submit([partial(time.sleep, 2), partial(give, it=0)], results.append)
    for number in (1, 2):
        queue.submit([partial(give, it=number)], results.append)
    kill_one = executor._processes
    while not kill_one:
        time.sleep(0.01)
    os.kill(next(iter(kill_one)), signal.SIGKILL)
    queue.submit([partial(give, it=3)], results.append)
    assert queue.finish(120) == 0
    assert [result.values for result in results] == [{"it": number} for number in range(4)]
    assert reasons
    assert "abruptly" in str(reasons[0]) or "(SIGKILL)" in str(reasons[0])


def test_an_executor_that_has_broken_before_gets_no_job_and_none_is_lost(
    new_queue: Any, results: list[Result], reasons: list[Exception]
) -> None:
    executor = new_executor("spawn pool")
    kill_processes(executor)
    queue = new_queue(executor)
    for _ in range(2):
        queue.submit([get_pid], results.append)
    assert queue.finish(120) == 0
    pids = {result.values["pid"] for result in results}
    assert len(pids) == 1
    assert os.getpid() not in pids, "training does not wait for jobs"


def test_the_job_that_crashes_each_process_is_named_and_costs_only_itself(
    new_queue: Any, results: list[Result], tmp_path: Path
) -> None:
    queue = new_queue(new_executor("spawn pool"))
    crash = partial(end_by, signal.SIGKILL, tmp_path / "notes", "x")
    queue.submit([partial(give, before=1), crash, partial(give, after=2)], results.append)
    queue.submit([partial(give, later=3)], results.append)
    assert queue.finish(120) == 0
    assert [result.values for result in results] == [{"before": 1, "after": 2}, {"later": 3}]
    assert isinstance(results[0].error, WorkerDiedError)
    assert "SIGKILL" in str(results[0].error)
    assert (tmp_path / "notes").read_text() == "xx"


class FutureCancelledError(concurrent.futures.CancelledError):
    """As distributed raises it."""


class Planned(Executor):
    """Executor whose first futures end as planned; it runs the work of later ones at once, in this thread."""

    def __init__(self, *plans: Callable[[Future[Any]], object]) -> None:
        self.plans = list(plans)

    def submit(self, work: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.plans:
            self.plans.pop(0)(future)
        else:
            future.set_result(work(*arguments, **keywords))
        return future


def cancel(future: Future[Any]) -> None:
    assert future.cancel()


def fail_with(error: BaseException) -> Callable[[Future[Any]], None]:
    return lambda future: future.set_exception(error)


def raise_from_future(future: Any) -> None:
    def fail() -> None:
        raise ConnectionError("the scheduler is gone")

    future.set_result(b"")
    future.exception = fail


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (cancel, ""),
        (fail_with(concurrent.futures.CancelledError()), ""),
        (fail_with(asyncio.CancelledError("the client was restarted")), "the client was restarted"),
        (fail_with(FutureCancelledError("the scheduler connection was lost")), "the scheduler connection was lost"),
    ],
)
def test_a_cancelled_job_has_a_reason_and_later_jobs_are_run(
    new_queue: Any, results: list[Result], reasons: list[Exception], end: Any, said: str
) -> None:
    queue = new_queue(Planned(end))
    for number in range(3):
        queue.submit([partial(give, it=number)], results.append)
    assert not queue.pending, "nothing is waited for"
    assert [result.values for result in results] == [{}, {"it": 1}, {"it": 2}]
    assert isinstance(results[0].error, JobCancelledError)
    assert "was cancelled in your executor" in str(results[0].error)
    assert str(results[0].error).endswith(said)
    assert reasons == []


def test_an_executor_that_is_shut_down_in_between_costs_what_it_cancelled(
    new_queue: Any, results: list[Result], reasons: list[Exception]
) -> None:
    executor = ThreadPoolExecutor(1)
    queue = new_queue(executor)
    queue.submit([partial(time.sleep, 1), partial(give, it=0)], results.append)
    for number in (1, 2):
        queue.submit([partial(give, it=number)], results.append)
    executor.shutdown(wait=False, cancel_futures=True)
    queue.submit([partial(give, it=3)], results.append)
    assert queue.finish(120) == 0
    assert [result.values for result in results] == [{"it": 0}, {}, {}, {"it": 3}]
    assert all(isinstance(result.error, JobCancelledError) for result in results[1:3])
    assert [str(reason) for reason in reasons] == ["cannot schedule new futures after shutdown"]


class KilledWorker(Exception):  # noqa: N818
    """As distributed raises it: no BrokenExecutor."""


def raise_when_asked(future: Any) -> None:
    def fail() -> None:
        raise ConnectionError("the scheduler is gone")

    future.done = fail


FAILURES: list[Callable[[Future[Any]], object]] = [
    fail_with(KilledWorker("Attempted to run run_packed on 4 different workers, but all those workers died")),
    fail_with(ModuleNotFoundError("No module named 'rlwandb_callbacks'")),
    fail_with(KeyboardInterrupt()),
    raise_from_future,
    raise_when_asked,
    lambda future: future.set_result("no bytes"),
]


def test_jobs_that_an_executor_did_not_run_are_run_elsewhere_and_later_ones_on_the_executor(
    new_queue: Any, results: list[Result], reasons: list[Exception]
) -> None:
    queue = new_queue(Planned(*FAILURES))
    for _ in range(len(FAILURES) + 1):
        queue.submit([get_pid], results.append)
    assert queue.finish(120) == 0
    *elsewhere, last = [result.values["pid"] for result in results]
    assert len(elsewhere) == len(reasons) == len(FAILURES)
    assert os.getpid() not in elsewhere
    assert last == os.getpid()


def test_a_pool_whose_threads_cannot_start_is_left(
    new_queue: Any, results: list[Result], reasons: list[Exception]
) -> None:
    queue = new_queue(ThreadPoolExecutor(1, initializer=int, initargs=("no number",)))
    for number in range(3):
        queue.submit([partial(give, it=number)], results.append)
    assert queue.finish(120) == 0
    assert [result.values for result in results] == [{"it": number} for number in range(3)]
    assert "initializer failed" in str(reasons[0])


class BareFuture:
    """A future that has the methods of one, and is of no class of the standard library."""

    def __init__(self, outcome: Any) -> None:
        self.outcome, self.ready_at = outcome, time.monotonic() + 0.2

    def done(self) -> bool:
        return time.monotonic() >= self.ready_at

    def cancelled(self) -> bool:
        return False

    def exception(self) -> None:
        return None

    def result(self) -> Any:
        return self.outcome


class Bare(Executor):
    def submit(self, work: Any, /, *arguments: Any, **keywords: Any) -> Any:
        return BareFuture(work(*arguments, **keywords))


def test_futures_of_other_classes_are_waited_for(new_queue: Any, results: list[Result]) -> None:
    queue = new_queue(Bare())
    queue.submit([partial(give, it=1)], results.append)
    assert queue.pending
    assert queue.finish(60) == 0
    assert results == [Result({"it": 1})]
