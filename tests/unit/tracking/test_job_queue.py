from __future__ import annotations

import builtins
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rlwandb_callbacks.tracking.job_queue import JobQueue
from rlwandb_callbacks.tracking.result import Result

KINDS = ["process", "thread", "inline"]
LOKY = tuple(map(int, version("loky").split(".")[:2]))


def return_after(seconds: float, result: Any) -> dict[str, Any]:
    time.sleep(seconds)
    return {"it": result}


def call(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    return {"it": function(*arguments)}


def fail() -> dict[str, Any]:
    raise ValueError("planted")


def values(results: list[Result]) -> list[Any]:
    return [result.values.get("it") for result in results]


def describe_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "nice": os.nice(0),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "group": os.getpgid(0),
        "has_torch": "torch" in sys.modules,
    }


def allocate(megabytes: int) -> int:
    kept: list[bytearray] = vars(builtins).setdefault("kept_by_the_worker", [])
    kept.append(bytearray(b"1" * (megabytes * 2**20)))
    time.sleep(1.1)  # loky checks memory at most once per second
    return os.getpid()


def wait_for(event: threading.Event) -> dict[str, Any]:
    assert event.wait(20)
    return {"it": "done"}


@pytest.fixture
def results() -> list[Result]:
    return []


@pytest.mark.parametrize("kind", KINDS)
def test_results_and_errors_are_returned_in_order_of_submission(kind: str, results: list[Result]) -> None:
    jobs = JobQueue(kind, queue_size=9)
    for job in (partial(return_after, 0.2, "slow"), fail, lambda: {"it": "local"}):
        assert jobs.submit([job], results.append)
    assert jobs.finish(120) == 0
    assert values(results) == ["slow", None, "local"]
    assert str(results[1].error) == "planted"
    assert len(jobs.pending) == 0


def test_worker_process_has_low_priority_one_thread_and_its_own_group(results: list[Result]) -> None:
    jobs = JobQueue("process")
    jobs.submit([partial(call, describe_process)], results.append)
    jobs.finish(120)
    worker = values(results)[0]
    assert worker["pid"] != os.getpid()
    assert worker["nice"] == min(19, os.nice(0) + 10)
    assert worker["threads"] == "1"
    assert worker["group"] != os.getpgid(0)


@pytest.mark.skipif(LOKY < (3, 7), reason="this version of loky has no setting for the memory growth of a worker")
def test_worker_process_with_increased_memory_is_kept(results: list[Result]) -> None:
    jobs = JobQueue("process")
    for megabytes in (1, 400, 1, 1):
        jobs.submit([partial(call, allocate, megabytes)], results.append)
    jobs.finish(120)
    jobs.close()
    assert len(set(values(results))) == 1


def test_user_executor_is_used_and_not_shut_down(results: list[Result]) -> None:
    with ThreadPoolExecutor(1) as executor:
        jobs = JobQueue(executor)
        jobs.submit([partial(call, threading.get_ident)], results.append)
        assert jobs.finish(120) == 0
        assert values(results)[0] == executor.submit(threading.get_ident).result() != threading.get_ident()


def test_full_queue_rejects_jobs_until_a_slot_is_free(results: list[Result]) -> None:
    jobs, gate = JobQueue("thread", queue_size=2), threading.Event()
    assert [jobs.submit([partial(wait_for, gate)], results.append) for _ in range(3)] == [True, True, False]
    gate.set()
    assert jobs.finish(120) == 0
    assert jobs.submit([partial(return_after, 0, "later")], results.append)
    assert jobs.finish(120) == 0
    assert values(results) == ["done", "done", "later"]


def test_jobs_with_takes_place_false_do_not_count_toward_queue_size(results: list[Result]) -> None:
    jobs, gate = JobQueue("thread", queue_size=1), threading.Event()
    assert jobs.submit([partial(wait_for, gate)], results.append, takes_place=False)
    assert jobs.submit([partial(return_after, 0, "counts")], results.append)
    assert not jobs.submit([partial(return_after, 0, "refused")], results.append)
    assert jobs.submit([partial(return_after, 0, "does not")], results.append, takes_place=False)
    gate.set()
    jobs.finish(20)
    assert values(results)[1:] == ["counts", "does not"]


def test_full_queue_blocks_with_waits_when_full(results: list[Result]) -> None:
    jobs = JobQueue("thread", queue_size=1, waits_when_full=True)
    assert all(jobs.submit([partial(return_after, 0.05, number)], results.append) for number in range(4))
    assert values(results) == [0, 1, 2]
    assert jobs.finish(120) == 0
    assert values(results)[-1] == 3


def test_an_interruption_ends_the_wait_for_a_place(results: list[Result]) -> None:
    jobs, gate, signal = JobQueue("thread", queue_size=1, waits_when_full=True), threading.Event(), threading.Event()
    jobs.submit([partial(call, gate.wait, 20)], results.append)
    threading.Timer(0.3, signal.set).start()
    started = time.monotonic()
    assert not jobs.submit([partial(call, len, "")], results.append, is_interrupted=signal.is_set)
    assert 0.3 <= time.monotonic() - started < 10
    gate.set()
    jobs.finish(20)
    assert values(results) == [True]


def test_job_above_max_bytes_is_accepted_only_by_an_empty_queue(results: list[Result]) -> None:
    jobs, frames = JobQueue("process", queue_size=9, max_bytes=1_000_000), bytes(700_000)
    assert jobs.submit([partial(return_after, 0.5, frames)], results.append)
    assert not jobs.submit([partial(call, len, frames)], results.append)
    assert jobs.submit([partial(call, len, b"small")], results.append)
    assert jobs.finish(120) == 0
    assert jobs.submit([partial(call, len, bytes(2_000_000))], results.append)
    assert jobs.finish(120) == 0
    assert values(results)[1:] == [5, 2_000_000]


def test_a_broken_output_costs_no_job(results: list[Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("rlwandb_callbacks.tracking.job_progress.SHOW_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr.write", fail)
    monkeypatch.setattr("sys.stderr.flush", fail)
    jobs = JobQueue("thread", queue_size=3)
    for number in range(3):
        jobs.submit([partial(return_after, 0.2, number)], results.append)
    assert jobs.finish(120) == 0
    assert values(results) == [0, 1, 2]


def test_collect_does_not_block(results: list[Result]) -> None:
    jobs, gate = JobQueue("thread"), threading.Event()
    jobs.submit([partial(wait_for, gate)], results.append)
    jobs.collect()
    assert (results, len(jobs.pending)) == ([], 1)
    gate.set()
    jobs.finish(120)
    assert len(results) == 1


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_jobs_that_exceed_the_time_limit_are_abandoned(kind: str, results: list[Result]) -> None:
    jobs = JobQueue(kind)
    for _ in range(2):
        jobs.submit([partial(return_after, 3, None)], results.append)
    assert jobs.finish(0.2) == 2
    assert (results, len(jobs.pending)) == ([], 0)
    assert jobs.submit([partial(return_after, 0, "again")], results.append)
    assert jobs.finish(120) == 0
    assert values(results)[0] == "again"


def test_unpicklable_job_runs_in_the_current_process_and_on_fallback_receives_the_error(results: list[Result]) -> None:
    reasons: list[Exception] = []
    jobs, lock = JobQueue("process", on_fallback=reasons.append), threading.Lock()
    assert jobs.submit([lambda: {"it": (os.getpid(), lock.locked())}], results.append)
    assert values(results)[0] == (os.getpid(), False)
    assert "pickle" in str(reasons[0])


def test_job_that_the_worker_cannot_import_runs_in_the_current_process(
    results: list[Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[Exception] = []
    jobs = JobQueue("process", on_fallback=reasons.append)
    for name, is_on_path in (("found_there", True), ("only_here", False)):
        (tmp_path / f"{name}.py").write_text("import os\ndef where(): return {'it': os.getpid()}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        module = __import__(name)
        if not is_on_path:
            (tmp_path / f"{name}.py").unlink()
        jobs.submit([module.where], results.append)
    jobs.finish(120)
    assert values(results)[0] != os.getpid()
    assert values(results)[1] == os.getpid()
    assert len(reasons) == 1
    assert "only_here" in str(reasons[0])


def test_killed_worker_is_an_error_and_the_next_job_succeeds(results: list[Result]) -> None:
    jobs = JobQueue("process")
    jobs.submit([partial(os._exit, 3)], results.append)
    assert jobs.finish(120) == 0
    jobs.submit([partial(return_after, 0, "alive")], results.append)
    assert jobs.finish(120) == 0
    assert results[0].error is not None
    assert values(results)[1] == "alive"


def test_script_without_main_guard_runs_once_and_its_classes_are_sent_to_the_worker(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "from rlwandb_callbacks.tracking.job_queue import JobQueue\n"
        "print('script')\n"
        "class Work:\n"
        "    def __call__(self): return {'it': 'from the script'}\n"
        "jobs = JobQueue('process')\n"
        "jobs.submit([Work()], lambda result: print(result.values['it']))\n"
        "jobs.finish(100)\n"
    )
    process = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    assert process.stdout.split("\n") == ["script", "from the script", ""]


SPAWNING = """
import multiprocessing
import os
import sys
import time

from rlwandb_callbacks.tracking.job_queue import JobQueue

class Work:
    def __call__(self):
        return {"it": os.getpid()}

def train():
    jobs = JobQueue("process", on_fallback=lambda reason: print("fallback", reason))
    jobs.submit([Work()], lambda result: print("elsewhere", result.values["it"] != os.getpid()))
    while sys.argv[1] == "late" and len(jobs.pending):
        jobs.collect()
        time.sleep(0.01)
    jobs.finish(60)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=train)
    process.start()
    process.join()
"""


@pytest.mark.parametrize("moment", ["early", "late"])
def test_spawned_process_sends_classes_of_its_script_and_exits(tmp_path: Path, moment: str) -> None:
    script = tmp_path / "train.py"
    script.write_text(SPAWNING)
    command = [sys.executable, str(script), moment]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=55)
    assert process.stdout == "elsewhere True\n", process.stderr[-3000:]


def test_worker_exits_after_the_training_process_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os\n"
        "from rlwandb_callbacks.tracking.job_queue import JobQueue\n"
        "jobs = JobQueue('process')\n"
        "jobs.submit([lambda: {'it': os.getpid()}], lambda result: print(result.values['it'], flush=True))\n"
        "jobs.submit([lambda: __import__('time').sleep(300)], print)\n"
        "jobs._take_first(100)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    process = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120)
    worker = int(process.stdout)
    deadline = time.monotonic() + 60
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(worker)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
