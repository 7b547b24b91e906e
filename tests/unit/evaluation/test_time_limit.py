"""Evaluations that reach their time limit: what was played counts, and the place that hangs is named."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv
from torch import nn

from rlwandb_callbacks.config import as_config
from rlwandb_callbacks.errors import ConfigError, EnvError
from rlwandb_callbacks.evaluation.env_failures import closing_env
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.replay import replay
from rlwandb_callbacks.evaluation.stopping import StoppedError, Stopping
from rlwandb_callbacks.testing import CorridorEnv

MAX_SECONDS = 1.0
pytestmark = pytest.mark.timeout(120)


def go_right(observations: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(observations), dtype=torch.int64)


class HangsAt(gym.Wrapper[Any, Any, Any, Any]):
    """Wrapper that calls ``hang`` in a method once ``is_on``: in the third step or the reset of seed 3, or in close."""

    where = "step"
    hang: Callable[[], object] = staticmethod(lambda: time.sleep(1e6))
    is_on = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seed, self.num_steps = seed, 0
        self.hang_in("reset", is_here=seed == 3)
        return self.env.reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.num_steps += 1
        self.hang_in("step", is_here=self.seed == 3 and self.num_steps == 3)
        return self.env.step(action)

    def render(self) -> Any:
        self.hang_in("render", is_here=self.seed == 3 and self.num_steps == 3)
        return self.env.render()

    def close(self) -> None:
        self.hang_in("close", is_here=True)
        self.env.close()

    def hang_in(self, where: str, *, is_here: bool) -> None:
        if self.is_on and is_here and where == self.where:
            self.hang()


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Evaluations leave no thread, no process and no signal handler behind."""
    for name in ("where", "hang", "is_on"):
        monkeypatch.setattr(HangsAt, name, vars(HangsAt)[name])
    threads, handler = set(threading.enumerate()), signal.getsignal(signal.SIGURG)
    yield
    assert signal.getsignal(signal.SIGURG) == handler
    assert not [each for each in threading.enumerate() if "time limit" in each.name]
    assert set(threading.enumerate()) <= threads
    assert not [each for each in multiprocessing.active_children() if "AsyncVectorEnv" in each.name]


def make(render_mode: str | None = None) -> gym.Env[Any, Any]:
    return HangsAt(CorridorEnv(render_mode))


class Played:
    """Result of an evaluation with a time limit."""

    def __init__(self, env: Any = make, policy: Any = go_right, **settings: Any) -> None:
        settings = {"episodes": 5, "num_envs": 1, "max_seconds": MAX_SECONDS, **settings}
        cfg = as_config({"evaluation": {"env": env, "policy": policy, **settings}})
        self.warnings: list[str] = []
        self.errors: list[Exception] = []
        evaluator = Evaluator(cfg, nn.Module(), lambda message, kind: self.warnings.append(message))
        HangsAt.is_on = True
        start = time.monotonic()
        self.seeds = [each.episode.seed for each in evaluator.play(on_failure=self.errors.append)]
        self.seconds = time.monotonic() - start


def never_ends() -> None:
    while True:
        pass


def catches_exceptions() -> None:
    while True:
        with contextlib.suppress(Exception):  # as environments do that connect again
            time.sleep(100)


def waits_for_lock() -> None:
    lock = threading.Lock()
    with lock:
        lock.acquire()


def waits_for_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            process.wait()
        finally:
            process.kill()


HANGS = {
    "sleep": lambda: time.sleep(1e6),
    "loop": never_ends,
    "catch": catches_exceptions,
    "lock": waits_for_lock,
    "process": waits_for_process,
}


@pytest.mark.parametrize("hang", HANGS.values(), ids=list(HANGS))
def test_step_that_never_returns_costs_the_episodes_under_way(hang: Callable[[], object]) -> None:
    HangsAt.hang = staticmethod(hang)
    played = Played()
    assert played.seeds == [0, 1, 2]
    assert played.seconds < 10 * MAX_SECONDS
    assert len(played.errors) == 2
    assert str(played.errors[0]).startswith(
        "step() of the environment (step 3 of the episode with seed 3) had not returned at the time limit of 1 s, "
        f"in {Path(__file__).name}, line "
    )


@pytest.mark.parametrize(
    ("where", "what"),
    [("reset", "reset() of the environment with seed 3 had"), ("render", "Recording a step had")],
)
def test_other_methods_that_never_return_are_named(where: str, what: str) -> None:
    HangsAt.where = where
    errors: list[Exception] = []
    cfg = as_config(
        {"evaluation": {"env": make, "policy": go_right, "episodes": 5, "num_envs": 1, "max_seconds": MAX_SECONDS}}
    )
    evaluator = Evaluator(cfg, nn.Module())
    HangsAt.is_on = True
    played = evaluator.play(on_failure=errors.append, frames_max_bytes=10**6)
    assert [each.episode.seed for each in played] == [0, 1, 2]
    assert str(errors[0]).startswith(what)


def test_constructor_that_never_returns_is_named() -> None:
    class HangsWhenMade(HangsAt):
        def __init__(self, env: Any) -> None:
            super().__init__(env)
            self.hang_in("init", is_here=True)

    HangsAt.where = "init"
    with pytest.raises(StoppedError, match="Making the environment had not returned"):
        Played(lambda render_mode=None: HangsWhenMade(CorridorEnv(render_mode)))


def test_close_that_never_returns_costs_no_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.evaluation.env_failures.CLOSING_SECONDS", 0.5)
    HangsAt.where = "close"
    played = Played()
    assert (played.seeds, played.errors) == ([0, 1, 2, 3, 4], [])
    assert "close() of the environment had not returned" in played.warnings[0]


def test_policy_that_never_returns_is_named() -> None:
    def hang(observations: torch.Tensor) -> torch.Tensor:
        if HangsAt.is_on:
            time.sleep(1e6)
        return go_right(observations)

    HangsAt.where = "nowhere"
    played = Played(policy=hang)
    assert played.seeds == []
    assert str(played.errors[0]).startswith("The policy had not returned")
    assert "in hang: time.sleep(1e6)" in str(played.errors[0])


def test_slow_environment_is_stopped_between_two_steps() -> None:
    class Slow(HangsAt):
        def step(self, action: Any) -> Any:
            time.sleep(0.1 if HangsAt.is_on else 0.0)
            return self.env.step(action)

    played = Played(lambda render_mode=None: Slow(CorridorEnv(render_mode)), max_seconds=1.5, episodes=50)
    assert 0 < len(played.seeds) < 15
    assert played.seeds == list(range(len(played.seeds)))
    assert len(played.errors) == 50 - len(played.seeds)
    assert str(played.errors[0]).startswith("evaluation.max_seconds = 1.5 was reached. Raise it")
    assert played.seconds < 10


def suspend() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def ignores_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1e6)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("hang", [suspend, ignores_sigterm], ids=["suspended", "ignores SIGTERM"])
def test_process_of_a_vector_that_does_not_answer_is_ended(hang: Callable[..., object]) -> None:
    HangsAt.hang = staticmethod(hang)

    class OnInWorkers(HangsAt):
        def hang_in(self, where: str, *, is_here: bool) -> None:
            if marker.exists() and is_here and where == self.where:
                self.hang()

    marker = Path("is_on")
    cfg = as_config(
        {
            "evaluation": {
                "env": lambda: AsyncVectorEnv([lambda: OnInWorkers(CorridorEnv())] * 3, context="fork"),
                "policy": go_right,
                "episodes": 5,
                "max_seconds": 3 * MAX_SECONDS,  # in which processes start, too
            }
        }
    )
    evaluator = Evaluator(cfg, nn.Module())
    marker.touch()
    errors: list[Exception] = []
    start = time.monotonic()
    played = evaluator.play(on_failure=errors.append)
    assert [each.episode.seed for each in played] == [0, 1, 2]
    assert time.monotonic() - start < 40
    assert str(errors[0]).startswith("step() of the vector environment had not returned")
    assert "async_vector_env.py" in str(errors[0])


def test_python_code_is_interrupted_in_other_threads_too() -> None:
    HangsAt.hang = staticmethod(never_ends)
    results: list[Played] = []
    thread = threading.Thread(target=lambda: results.append(Played()))
    thread.start()
    thread.join(60)
    assert results[0].seeds == [0, 1, 2]


def test_handler_of_the_user_is_kept() -> None:
    HangsAt.hang = staticmethod(never_ends)
    numbers: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, frame: numbers.append(number))
    try:
        assert Played().seeds == [0, 1, 2]
        signal.raise_signal(signal.SIGURG)
    finally:
        signal.signal(signal.SIGURG, before)
    assert numbers == [signal.SIGURG]


def test_call_that_cannot_be_interrupted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.evaluation.time_limit.AGAIN_SECONDS", 0.2)
    ours, theirs = os.pipe()
    warned: list[str] = []

    def warn(message: str) -> None:
        warned.append(message)
        os.write(theirs, b"!")

    def blocks_signals() -> None:  # as code that is not Python
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
        try:
            os.read(ours, 1)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})
        time.sleep(60)

    with pytest.raises(StoppedError), Stopping(0.2, warn=warn).interruptible(lambda: "step()"):
        blocks_signals()
    os.close(ours)
    os.close(theirs)
    assert len(warned) == 1
    assert "step() does not return, in" in warned[0]
    assert "os.read(ours, 1)" in warned[0]
    assert "cannot be interrupted there" in warned[0]


def sleeps_in_its_handler() -> None:
    while True:
        try:
            time.sleep(100)
        except:  # noqa: E722, PERF203  # as simulator clients do
            time.sleep(1)


def has_an_empty_handler() -> None:
    while True:
        try:
            time.sleep(0.02)
            raise ConnectionError
        except:  # noqa: E722, PERF203
            pass


def suppresses() -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(100)


@pytest.mark.parametrize("connects_again_and_again", [sleeps_in_its_handler, has_an_empty_handler, suppresses])
def test_call_that_catches_every_exception_is_ended(
    connects_again_and_again: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlwandb_callbacks.evaluation.time_limit.AGAIN_SECONDS", 0.2)
    with pytest.raises(StoppedError, match="had not returned"), Stopping(0.2).interruptible(lambda: "step()"):
        connects_again_and_again()
    assert sys.gettrace() is None


def test_call_that_catches_every_exception_under_a_debugger_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.evaluation.time_limit.AGAIN_SECONDS", 0.1)
    warned: list[str] = []

    def debugger(*_: Any) -> None:
        pass

    def goes_on() -> None:
        while not warned:
            with contextlib.suppress(BaseException):
                time.sleep(100)

    before = sys.gettrace()
    sys.settrace(debugger)
    try:
        with Stopping(0.2, warn=warned.append).interruptible(lambda: "step()"):
            goes_on()
        assert sys.gettrace() is debugger
    finally:
        sys.settrace(before)
    assert "catches each exception by which it is interrupted" in warned[0]


def test_blocks_that_end_as_they_are_interrupted_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.evaluation.time_limit.GRACE_SECONDS", 0.002)
    ends = []
    for index in range(100):
        end = time.perf_counter() + index % 20 * 1e-3  # longer than Python's switch interval
        try:
            with Stopping(1e-9).interruptible(lambda: "step()"):
                while time.perf_counter() < end:
                    pass
            ends.append("ended")
        except StoppedError:
            ends.append("stopped")
    assert "stopped" in ends
    assert len(ends) == 100


@pytest.mark.parametrize("has_block", [True, False], ids=["in a block", "after a block"])
def test_close_that_never_returns_has_a_time_limit_of_its_own(has_block: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.evaluation.env_failures.CLOSING_SECONDS", 0.3)
    monkeypatch.setattr("rlwandb_callbacks.evaluation.env_failures._hanging_types", set())
    HangsAt.where, HangsAt.is_on = "close", True
    errors: list[Exception] = []
    stopping = Stopping(1000)
    start = time.monotonic()
    if has_block:
        with stopping.interruptible(lambda: "Replaying an episode"):
            for _ in range(2):
                with closing_env(make(), errors.append):
                    pass
            time.sleep(2.5)  # the block goes on
    else:
        for _ in range(2):
            with closing_env(make(), errors.append, stopping):
                pass
    assert time.monotonic() - start < 30
    messages = [str(error) for error in errors]
    assert len(messages) == 2
    assert all(each.startswith("close() of the environment had not returned at the time limit") for each in messages)
    assert all("raise evaluation.max_seconds" not in each for each in messages)
    assert "limit of 0.3 s" in messages[0]
    assert "limit of 1 s" in messages[1]  # less or more, it is another one once close() has not returned


def test_close_that_never_returns_after_the_limit_of_its_block_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.evaluation.env_failures.CLOSING_SECONDS", 0.5)
    HangsAt.where, HangsAt.is_on = "close", True
    errors: list[Exception] = []
    with Stopping(0.2).interruptible(lambda: "Replaying an episode"), closing_env(make(), errors.append):
        pass
    assert "close() of the environment had not returned at the time limit of" in str(errors[0])


def test_slow_close_has_its_own_time_after_the_limit_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    HangsAt.where, HangsAt.is_on, HangsAt.hang = "close", True, staticmethod(lambda: time.sleep(3.0))
    monkeypatch.setattr("rlwandb_callbacks.evaluation.time_limit.TIMER_SECONDS", 0.5)
    monkeypatch.setattr("rlwandb_callbacks.evaluation.env_failures._hanging_types", set())
    errors: list[Exception] = []
    with Stopping(0.2).interruptible(lambda: "Replaying an episode"), closing_env(make(), errors.append):
        pass
    assert errors == []


def test_close_that_never_returns_costs_no_frame_of_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    HangsAt.where = "nowhere"
    cfg = as_config({"evaluation": {"env": make, "policy": go_right}})
    episode = Evaluator(cfg, nn.Module()).play([0])[0].episode
    monkeypatch.setattr("rlwandb_callbacks.evaluation.env_failures.CLOSING_SECONDS", 0.5)
    HangsAt.where, HangsAt.is_on = "close", True
    frames = list(replay(lambda: make("rgb_array"), episode))
    assert len(frames) == episode.length + 1


HOLDS_LOCK = """
import ctypes, signal, time
from rlwandb_callbacks.evaluation import stopping, time_limit
time_limit.TIMER_SECONDS = 0.5
start = time.monotonic()
try:
    with stopping.Stopping(0.2).interruptible(lambda: "step()"):
        ctypes.PyDLL(None).sleep(60)
except stopping.StoppedError as error:
    print(time.monotonic() - start < 30, signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL), error)
"""


def test_call_that_keeps_all_threads_from_running_is_named_on_stderr() -> None:
    result = subprocess.run([sys.executable, "-c", HOLDS_LOCK], capture_output=True, text=True, timeout=100, check=True)
    assert "most recent call first" in result.stderr
    assert 'File "<string>", line 8 in <module>' in result.stderr
    assert result.stdout.startswith("True 0 (0.0, 0.0) step() had not returned")


def test_timer_of_the_user_is_kept() -> None:
    left, handler = signal.getitimer(signal.ITIMER_REAL)[0], signal.getsignal(signal.SIGALRM)
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with Stopping(60).interruptible(lambda: "step()"):
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)
    assert signal.getsignal(signal.SIGALRM) == handler


def test_interrupted_training_ends_a_step_that_hangs() -> None:
    HangsAt.is_on = True
    stopping = Stopping(None, lambda: True)
    with pytest.raises(StoppedError, match="interrupted"):
        stopping.check()
    with pytest.raises(StoppedError, match="interrupted"), stopping.interruptible(lambda: "step()"):
        time.sleep(1e6)


def test_environment_that_hangs_before_training_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.evaluation.evaluator.PREPARATION_SECONDS", 0.2)
    HangsAt.where, HangsAt.is_on = "reset", True
    with pytest.raises(EnvError, match="Making the environment and calling the policy had not returned"):
        Played(seed=3)


def test_no_limit_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("a thread was started"))
    HangsAt.where = "nowhere"
    assert Played(max_seconds=None).seeds == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("max_seconds", [1e300, float("inf")])
def test_limits_that_are_never_reached_are_allowed(max_seconds: float) -> None:
    HangsAt.where = "nowhere"
    assert Played(max_seconds=max_seconds).seeds == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "soon", True])
def test_wrong_limits_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.max_seconds"):
        as_config({"evaluation": {"max_seconds": value}})


def test_asking_whether_to_stop_costs_little() -> None:
    stopping = Stopping(600)
    start = time.perf_counter()
    for _ in range(10_000):
        stopping.check()
    assert (time.perf_counter() - start) / 10_000 < 20e-6
