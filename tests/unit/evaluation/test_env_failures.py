"""Environments that fail in part: what was played counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
import torch
from evaluations import Evaluations, KeptErrors
from torch import nn

from rlwandb_callbacks.config import WandbRLConfig, as_config
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.evaluation.env_failures import EnvExitError, env_call
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.replay import check_replay, replay
from rlwandb_callbacks.testing import CorridorEnv


def go_right(observations: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(observations), dtype=torch.int64)


def config(env: Any, **settings: Any) -> WandbRLConfig:
    return as_config({"evaluation": {"env": env, "policy": go_right, "episodes": 5, **settings}})


def played(env: Any, **settings: Any) -> tuple[list[int | None], list[Exception]]:
    """Returns the seeds of the episodes, and the errors of the others."""
    failures: list[Exception] = []
    evaluator = Evaluator(config(env, **settings), nn.Module(), lambda message, kind: None)
    return [each.episode.seed for each in evaluator.play(on_failure=failures.append)], failures


class RefusesEarlyReset(gym.Wrapper[Any, Any, Any, Any]):
    """Wrapper that refuses to reset an episode that has not ended, as SB3's Monitor can."""

    is_playing = False

    def reset(self, **options: Any) -> Any:
        if self.is_playing:
            raise RuntimeError("the episode has not ended")
        self.is_playing = True
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        *others, terminated, truncated, info = super().step(action)
        self.is_playing = not (terminated or truncated)
        return *others, terminated, truncated, info


def make_refusing(render_mode: str | None = None) -> gym.Env[Any, Any]:
    return RefusesEarlyReset(CorridorEnv(render_mode))


def make_refusing_vector(render_mode: str | None = None) -> Any:
    return gym.vector.SyncVectorEnv([lambda: make_refusing(render_mode)] * 2)


@pytest.mark.parametrize("make", [make_refusing, make_refusing_vector])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_env_that_refuses_early_resets_is_made_again_after_a_cut(make: Any, num_envs: int) -> None:
    assert played(make, num_envs=num_envs, max_steps=2) == ([0, 1, 2, 3, 4], [])


class Fails(CorridorEnv):
    """Corridor that fails in the episode with seed 2, at its second step."""

    def fail(self) -> None:
        raise RuntimeError("boom")

    def step(self, action: Any) -> Any:
        step = super().step(action)
        if self._length == 4 and self._steps == 2:
            self.fail()
        return step


class Exits(Fails):
    """As Fails, but tries to end the process."""

    def fail(self) -> None:
        raise SystemExit(3)


class Panics(Fails):
    """As Fails, but raises an exception as those of Rust."""

    def fail(self) -> None:
        class PanicException(BaseException):
            pass

        raise PanicException("index out of bounds")


class FailsAtReset(CorridorEnv):
    """Corridor that cannot be reset with seed 2."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed == 2:
            raise SystemExit(3)
        return super().reset(seed=seed)


class UnreadableReward(Fails):
    """Corridor with a reward that is no number a float can hold."""

    def step(self, action: Any) -> Any:
        observation, reward, *others = CorridorEnv.step(self, action)
        return observation, 10**400 if self._length == 4 else reward, *others


@pytest.mark.parametrize("num_envs", [1, 2, 5])
@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Fails, "boom"),
        (Exits, "sys.exit(3)"),
        (Panics, "index out of bounds"),
        (FailsAtReset, "sys.exit(3)"),
        (UnreadableReward, "too large"),
    ],
)
def test_only_the_episode_that_fails_is_left_out(env: Any, message: str, num_envs: int) -> None:
    seeds, failures = played(env, num_envs=num_envs)
    assert seeds == [0, 1, 3, 4]
    (failure,) = failures
    assert message in str(failure)


def test_a_vector_fails_as_a_whole_and_is_made_again() -> None:
    seeds, failures = played(lambda: gym.vector.SyncVectorEnv([Exits] * 2))
    assert seeds == [0, 1, 4]
    assert len(failures) == 2


def test_keyboard_interrupt_ends_the_evaluation() -> None:
    class Interrupted(Fails):
        def fail(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        played(Interrupted)


def test_exit_by_a_signal_handler_ends_the_evaluation() -> None:
    def leave(*_: Any) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGUSR1, leave)
    try:
        with pytest.raises(SystemExit), env_call():
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_nothing_is_tried_again_if_all_first_episodes_fail() -> None:
    class NeverWorks(Fails):
        resets = 0

        def step(self, action: Any) -> Any:
            raise RuntimeError("boom")

        def reset(self, **options: Any) -> Any:
            NeverWorks.resets += 1
            return super().reset(**options)

    seeds, failures = played(NeverWorks, episodes=50, num_envs=2)
    assert (seeds, len(failures)) == ([], 2)


def test_partial_evaluation_is_logged_with_one_warning(errors: KeptErrors, tmp_path: Any) -> None:
    evaluate = Evaluations(config(Exits), tmp_path, errors)
    episodes, clips = evaluate()
    assert [episode.seed for episode in episodes] == [0, 1, 3, 4]
    assert evaluate.published["eval/return_mean"] == (2 + 3 + 5 + 6) / 4
    assert "video/best" in clips
    ((what, error),) = errors.errors
    assert what == "Part of the evaluation"
    assert "1 episode is left out: EnvExitError: The environment called sys.exit(3)" in str(error)


class FailsToClose(CorridorEnv):
    """Corridor whose close() fails, as it does in some environments that have drawn nothing."""

    def close(self) -> None:
        raise AttributeError("no attribute 'renderer'")


class ExitsAtClose(CorridorEnv):
    """Corridor whose close() tries to end the process."""

    def close(self) -> None:
        raise SystemExit(1)


@pytest.mark.parametrize("env", [FailsToClose, ExitsAtClose])
def test_failing_close_costs_neither_numbers_nor_videos(errors: KeptErrors, tmp_path: Any, env: Any) -> None:
    evaluate = Evaluations(config(env), tmp_path, errors)
    episodes, clips = evaluate()
    assert [episode.seed for episode in episodes] == [0, 1, 2, 3, 4]
    assert {"video/best", "video/median", "video/worst"} <= clips.keys()
    assert errors.errors == []
    assert all("Closing the environment failed, and training goes on" in warning for warning in errors.warnings)
    assert errors.warnings


@pytest.mark.parametrize("value", [10**400, -(10**400), "text", object()])
def test_unreadable_values_of_info_are_ignored(value: Any) -> None:
    class Info(CorridorEnv):
        def step(self, action: Any) -> Any:
            *others, info = super().step(action)
            return *others, {**info, "huge": value, "height": 2.0}

    evaluator = Evaluator(config(Info), nn.Module())
    episodes = [each.episode for each in evaluator.play()]
    assert [list(episode.infos) for episode in episodes] == [["height"]] * 5


@pytest.mark.parametrize(
    "run", [lambda make, e: check_replay(make, e, max_steps=9), lambda make, e: list(replay(make, e))]
)
def test_exit_in_a_replay_is_an_error(run: Callable[..., Any]) -> None:
    evaluator = Evaluator(config(CorridorEnv), nn.Module())
    episode: Episode = evaluator.play([2])[0].episode
    with pytest.raises((EnvExitError, RenderError), match=r"sys\.exit\(3\)"):
        run(lambda: Exits("rgb_array"), episode)


FORKS = """
import os, sys
import torch
from rlwandb_callbacks.config import as_config
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.testing import CorridorEnv

class Forks(CorridorEnv):
    is_on = sys.argv[2] == "exit"

    def leave_a_child(self, method):
        if self.is_on and method == sys.argv[1] and os.fork() == 0:
            if sys.argv[2] == "error":
                raise FileNotFoundError("no simulator")
            sys.exit(3)

    def reset(self, **options):
        self.leave_a_child("reset")
        return super().reset(**options)

    def step(self, action):
        self.leave_a_child("step")
        return super().step(action)

    def close(self):
        self.leave_a_child("close")
        super().close()

def go_right(observations):
    return torch.ones(len(observations), dtype=torch.int64)

cfg = as_config({"evaluation": {"env": Forks, "policy": go_right, "episodes": 1}})
evaluator = Evaluator(cfg, torch.nn.Module())
Forks.is_on = True
evaluator.play()
print("the evaluation has ended", flush=True)
codes = set()
while True:
    try:
        codes.add(os.waitstatus_to_exitcode(os.wait()[1]))
    except ChildProcessError:
        break
print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(("method", "end", "code"), [("reset", "exit", 3), ("step", "error", 1), ("close", "exit", 3)])
def test_a_process_that_an_environment_forks_ends_by_its_exit_or_error(method: str, end: str, code: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORKS, method, end], capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout.splitlines() == ["the evaluation has ended", f"{{{code}}}"]
