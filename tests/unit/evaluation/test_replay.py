from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlwandb_callbacks.core.episode import Episode, PolicyStep
from rlwandb_callbacks.environments.factory import EnvMaker
from rlwandb_callbacks.errors import EnvError, RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluation.replay import replay
from rlwandb_callbacks.evaluation.single_envs import play
from rlwandb_callbacks.testing import CorridorEnv, PointEnv


def limited(render_mode: str | None = None) -> gym.Env[Any, Any]:
    return gym.wrappers.TimeLimit(CorridorEnv(render_mode), max_episode_steps=3)


def drawn(maker: EnvMaker, seed: int) -> Callable[[Any], PolicyStep]:
    """A policy that acts at random, by a generator of its own."""
    space = maker().action_space
    space.seed(seed)
    return lambda observations: PolicyStep(np.stack([space.sample() for _ in observations]))


def record(maker: EnvMaker, seeds: range = range(2), max_steps: int = 25) -> list[Episode]:
    played = play(maker, drawn(maker, 0), seeds=seeds, num_envs=len(seeds), max_steps=max_steps)
    return [each.episode for each in played]


def pictured(maker: EnvMaker) -> Callable[[], gym.Env[Any, Any]]:
    return lambda: maker(render=True)


@pytest.mark.parametrize(
    "env",
    ["CartPole-v1", "Pendulum-v1", "LunarLander-v3", "BipedalWalker-v3", CorridorEnv, PointEnv, limited],
    ids=["CartPole", "Pendulum", "LunarLander", "BipedalWalker", "corridor", "point", "wrapped"],
)
def test_a_replay_in_a_fresh_env_is_exact_and_has_a_frame_more_than_steps(env: Any) -> None:
    maker = EnvMaker(env)
    for episode in record(maker, max_steps=12):
        frames = list(replay(pictured(maker), episode))
        assert len(frames) == episode.length + 1
        assert {frame.shape for frame in frames} == {frames[0].shape}


def test_bipedal_walker_is_exact_over_a_whole_fall_when_each_episode_has_a_fresh_env() -> None:
    maker = EnvMaker("BipedalWalker-v3")
    episode = record(maker, range(1), max_steps=200)[0]
    assert episode.length > 30
    assert sum(1 for _ in replay(pictured(maker), episode)) == episode.length + 1


def test_the_frames_are_those_of_the_episode_up_to_its_last_state() -> None:
    maker = EnvMaker(CorridorEnv)
    episode = play(maker, lambda batch: PolicyStep(np.ones(len(batch), int)), seeds=[2], num_envs=1, max_steps=99)[
        0
    ].episode
    columns = [int(np.nonzero(frame[0, :, 0])[0][0]) for frame in replay(pictured(maker), episode)]
    assert columns == [position * 61 // 8 for position in range(5)]


class Shaky(CorridorEnv):
    """A corridor whose reward is drawn from the interpreter's own random numbers."""

    def step(self, action: Any) -> Any:
        observation, reward, *others = super().step(action)
        return observation, reward + random.random(), *others


class Adrift(CorridorEnv):
    """A corridor that begins somewhere else each time it is made."""

    made = 0

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        Adrift.made += 1
        self._offset = Adrift.made

    def _observation(self) -> Any:
        return super()._observation() + self._offset


@pytest.mark.parametrize(("env", "step"), [(Shaky, 1), (Adrift, 0)])
def test_an_env_that_does_not_repeat_itself_is_found_at_the_first_difference(env: Any, step: int) -> None:
    maker = EnvMaker(env)
    episode = record(maker, range(7, 8))[0]
    frames = replay(pictured(maker), episode)
    seen = [next(frames) for _ in range(step)]
    with pytest.raises(ReplayDivergedError, match=rf"seed 7 came out differently at step {step} of {episode.length} "):
        next(frames)
    assert len(seen) == step


def test_other_actions_are_found_as_well() -> None:
    maker = EnvMaker(CorridorEnv)
    episode = record(maker, range(4, 5))[0]
    changed = Episode(**{**vars(episode), "actions": 1 - episode.actions})
    with pytest.raises(ReplayDivergedError, match="at step 1 "):
        list(replay(pictured(maker), changed))


def test_a_running_mean_of_a_wrapper_is_found() -> None:
    def make(render_mode: str | None = None) -> gym.Env[Any, Any]:
        return gym.wrappers.NormalizeObservation(CorridorEnv(render_mode))

    maker = EnvMaker(make)
    played = play(maker, drawn(maker, 0), seeds=range(2), num_envs=1, max_steps=25)
    list(replay(pictured(maker), played[0].episode))
    with pytest.raises(ReplayDivergedError):
        list(replay(pictured(maker), played[1].episode))


def test_an_episode_without_digests_is_not_checked() -> None:
    maker = EnvMaker(Shaky)
    episode = record(maker, range(1))[0]
    unchecked = Episode(**{**vars(episode), "digests": None})
    assert sum(1 for _ in replay(pictured(maker), unchecked)) == episode.length + 1


def test_an_env_that_is_made_without_pictures_is_an_error_at_the_first_frame() -> None:
    def make() -> gym.Env[Any, Any]:
        return CorridorEnv()

    maker = EnvMaker(make)
    episode = record(maker, range(1))[0]
    with pytest.raises(RenderError, match="must take render_mode and pass it on"):
        next(replay(pictured(maker), episode))


class Failing(CorridorEnv):
    """Fails at one place of an episode that is rendered, and says so in a sentence."""

    fails_in, fails_at = "render", 0

    def __init__(self, render_mode: str | None = None) -> None:
        if self.fails_in == "make" and render_mode is not None:
            raise RuntimeError("Planted.")
        super().__init__(render_mode)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._fail_in("reset", at=0)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self._fail_in("step", at=self._steps + 1)
        return super().step(action)

    def render(self) -> Any:
        self._fail_in("render", at=self._steps)
        return super().render()

    def _fail_in(self, method: str, *, at: int) -> None:
        if self.render_mode is not None and (method, at) == (self.fails_in, self.fails_at):
            raise RuntimeError("Planted.")


@pytest.mark.parametrize(
    ("place", "at", "may_lack_a_display"),
    [("make", 0, True), ("reset", 0, True), ("render", 0, True), ("step", 2, False), ("render", 2, False)],
)
def test_the_remedy_for_a_missing_display_is_told_until_there_was_a_picture(
    monkeypatch: pytest.MonkeyPatch, place: str, at: int, may_lack_a_display: bool
) -> None:
    maker = EnvMaker(Failing)
    monkeypatch.setattr(Failing, "fails_in", "nothing")
    episode = record(maker, range(4, 5))[0]
    assert episode.length > 2
    monkeypatch.setattr(Failing, "fails_in", place)
    monkeypatch.setattr(Failing, "fails_at", at)
    with pytest.raises((EnvError, RenderError)) as caught:
        list(replay(pictured(maker), episode))
    told = str(caught.value)
    assert ("MUJOCO_GL" in told) == may_lack_a_display
    assert "RuntimeError: Planted. " in told
    assert ".." not in told
    assert "video_logger=False" in told


@pytest.mark.parametrize("frames_taken", [1, 2, 99])
def test_the_env_is_closed_however_far_the_replay_went(frames_taken: int) -> None:
    closed = []

    class Closing(CorridorEnv):
        def close(self) -> None:
            closed.append(True)

    episode = record(EnvMaker(CorridorEnv), range(1))[0]
    frames = replay(pictured(EnvMaker(Closing)), episode)
    for _, _frame in zip(range(frames_taken), frames, strict=False):
        pass
    frames.close()
    assert closed == [True]
