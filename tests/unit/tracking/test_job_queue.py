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


def after(seconds: float, result: Any) -> dict[str, Any]:
    time.sleep(seconds)
    return {"it": result}


def returns(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    return {"it": function(*arguments)}


def fail() -> dict[str, Any]:
    raise ValueError("planted")


def values(results: list[Result]) -> list[Any]:
    return [result.values.get("it") for result in results]


def about_the_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "nice": os.nice(0),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "group": os.getpgid(0),
        "has_torch": "torch" in sys.modules,
    }


def grow_by(megabytes: int) -> int:
    kept: list[bytearray] = vars(builtins).setdefault("kept_by_the_worker", [])
    kept.append(bytearray(b"1" * (megabytes * 2**20)))
    time.sleep(1.1)  # loky looks at most once in a second
    return os.getpid()


def wait_for(event: threading.Event) -> dict[str, Any]:
    assert event.wait(20)
    return {"it": "done"}


@pytest.fixture
def results() -> list[Result]:
    return []


@pytest.mark.parametrize("kind", KINDS)
def test_results_and_errors_come_back_in_the_order_of_submission(kind: str, results: list[Result]) -> None:
    jobs = JobQueue(kind, queue_size=9)
    for job in (partial(after, 0.2, "slow"), fail, lambda: {"it": "local"}):
        assert jobs.submit([job], results.append)
    assert jobs.finish(120) == 0
    assert values(results) == ["slow", None, "local"]
    assert str(results[1].error) == "planted"
    assert len(jobs.pending) == 0


def test_a_worker_process_steps_back_behind_training(results: list[Result]) -> None:
    jobs = JobQueue("process")
    jobs.submit([partial(returns, about_the_process)], results.append)
    jobs.finish(120)
    worker = values(results)[0]
    assert worker["pid"] != os.getpid()
    assert worker["nice"] == min(19, os.nice(0) + 10)
    assert worker["threads"] == "1"
    assert worker["group"] != os.getpgid(0)


@pytest.mark.skipif(LOKY < (3, 7), reason="this loky cannot be told how much a worker may grow")
def test_a_worker_process_that_has_grown_is_kept(results: list[Result]) -> None:
    jobs = JobQueue("process")
    for megabytes in (1, 400, 1, 1):
        jobs.submit([partial(returns, grow_by, megabytes)], results.append)
    jobs.finish(120)
    jobs.close()
    assert len(set(values(results))) == 1


def test_an_executor_of_the_users_is_used_and_left_running(results: list[Result]) -> None:
    with ThreadPoolExecutor(1) as executor:
        jobs = JobQueue(executor)
        jobs.submit([partial(returns, threading.get_ident)], results.append)
        assert jobs.finish(120) == 0
        assert values(results)[0] == executor.submit(threading.get_ident).result() != threading.get_ident()


def test_a_full_queue_refuses_work_until_there_is_a_place(results: list[Result]) -> None:
    jobs, gate = JobQueue("thread", queue_size=2), threading.Event()
    assert [jobs.submit([partial(wait_for, gate)], results.append) for _ in range(3)] == [True, True, False]
    gate.set()
    assert jobs.finish(120) == 0
    assert jobs.submit([partial(after, 0, "later")], results.append)
    assert jobs.finish(120) == 0
    assert values(results) == ["done", "done", "later"]


def test_what_does_not_count_takes_no_place(results: list[Result]) -> None:
    jobs, gate = JobQueue("thread", queue_size=1), threading.Event()
    assert jobs.submit([partial(wait_for, gate)], results.append, takes_place=False)
    assert jobs.submit([partial(after, 0, "counts")], results.append)
    assert not jobs.submit([partial(after, 0, "refused")], results.append)
    assert jobs.submit([partial(after, 0, "does not")], results.append, takes_place=False)
    gate.set()
    jobs.finish(20)
    assert values(results)[1:] == ["counts", "does not"]


def test_a_full_queue_may_wait_instead(results: list[Result]) -> None:
    jobs = JobQueue("thread", queue_size=1, waits_when_full=True)
    assert all(jobs.submit([partial(after, 0.05, number)], results.append) for number in range(4))
    assert values(results) == [0, 1, 2]
    assert jobs.finish(120) == 0
    assert values(results)[-1] == 3


def test_work_that_holds_too_many_bytes_waits_for_an_empty_queue(results: list[Result]) -> None:
    jobs, frames = JobQueue("process", queue_size=9, max_bytes=1_000_000), bytes(700_000)
    assert jobs.submit([partial(after, 0.5, frames)], results.append)
    assert not jobs.submit([partial(returns, len, frames)], results.append)
    assert jobs.submit([partial(returns, len, b"small")], results.append)
    assert jobs.finish(120) == 0
    assert jobs.submit([partial(returns, len, bytes(2_000_000))], results.append)
    assert jobs.finish(120) == 0
    assert values(results)[1:] == [5, 2_000_000]


def test_collecting_never_waits(results: list[Result]) -> None:
    jobs, gate = JobQueue("thread"), threading.Event()
    jobs.submit([partial(wait_for, gate)], results.append)
    jobs.collect()
    assert (results, len(jobs.pending)) == ([], 1)
    gate.set()
    jobs.finish(120)
    assert len(results) == 1


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_what_takes_too_long_is_given_up(kind: str, results: list[Result]) -> None:
    jobs = JobQueue(kind)
    for _ in range(2):
        jobs.submit([partial(after, 3, None)], results.append)
    assert jobs.finish(0.2) == 2
    assert (results, len(jobs.pending)) == ([], 0)
    assert jobs.submit([partial(after, 0, "again")], results.append)
    assert jobs.finish(120) == 0
    assert values(results)[0] == "again"


def test_what_cannot_be_pickled_is_done_here_and_says_why(results: list[Result]) -> None:
    reasons: list[Exception] = []
    jobs, lock = JobQueue("process", on_fallback=reasons.append), threading.Lock()
    assert jobs.submit([lambda: {"it": (os.getpid(), lock.locked())}], results.append)
    assert values(results)[0] == (os.getpid(), False)
    assert "pickle" in str(reasons[0])


def test_what_the_worker_cannot_import_is_done_here(
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


def test_a_worker_that_dies_is_an_error_and_the_next_one_works(results: list[Result]) -> None:
    jobs = JobQueue("process")
    jobs.submit([partial(os._exit, 3)], results.append)
    assert jobs.finish(120) == 0
    jobs.submit([partial(after, 0, "alive")], results.append)
    assert jobs.finish(120) == 0
    assert results[0].error is not None
    assert values(results)[1] == "alive"


def test_a_script_without_a_main_guard_runs_once_and_its_classes_reach_the_worker(tmp_path: Path) -> None:
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
    answer = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout.split("\n") == ["script", "from the script", ""]


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
def test_a_process_that_was_spawned_sends_classes_of_its_script_and_ends(tmp_path: Path, moment: str) -> None:
    script = tmp_path / "train.py"
    script.write_text(SPAWNING)
    command = [sys.executable, str(script), moment]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=55)
    assert answer.stdout == "elsewhere True\n", answer.stderr[-3000:]


def test_a_worker_leaves_when_the_training_process_was_killed(tmp_path: Path) -> None:
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
    answer = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120)
    worker = int(answer.stdout)
    deadline = time.monotonic() + 60
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(worker)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
