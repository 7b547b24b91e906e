from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from episodes import play_in_single_envs

from rlwandb_callbacks.core.episode import Episode, PolicyStep
from rlwandb_callbacks.environments.factory import EnvFactory
from rlwandb_callbacks.errors import EnvError, RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluation.replay import replay
from rlwandb_callbacks.testing import CorridorEnv, PointEnv


def limited(render_mode: str | None = None) -> gym.Env[Any, Any]:
    return gym.wrappers.TimeLimit(CorridorEnv(render_mode), max_episode_steps=3)


def random_actions(maker: EnvFactory, seed: int) -> Callable[[Any], PolicyStep]:
    """A policy that samples actions with a separate generator."""
    space = maker().action_space
    space.seed(seed)
    return lambda observations: PolicyStep(np.stack([space.sample() for _ in observations]))


def record(maker: EnvFactory, seeds: range = range(2), max_steps: int = 25) -> list[Episode]:
    played = play_in_single_envs(maker, random_actions(maker, 0), seeds=seeds, num_envs=len(seeds), max_steps=max_steps)
    return [each.episode for each in played]


def rendering(maker: EnvFactory) -> Callable[[], gym.Env[Any, Any]]:
    return lambda: maker(render=True)


@pytest.mark.parametrize(
    "env",
    ["CartPole-v1", "Pendulum-v1", "LunarLander-v3", "BipedalWalker-v3", CorridorEnv, PointEnv, limited],
    ids=["CartPole", "Pendulum", "LunarLander", "BipedalWalker", "corridor", "point", "wrapped"],
)
def test_a_replay_in_a_new_env_is_exact_and_has_one_frame_more_than_steps(env: Any) -> None:
    maker = EnvFactory(env)
    for episode in record(maker, max_steps=12):
        frames = list(replay(rendering(maker), episode))
        assert len(frames) == episode.length + 1
        assert {frame.shape for frame in frames} == {frames[0].shape}


def test_bipedal_walker_is_exact_until_it_falls_when_each_episode_has_a_new_env() -> None:
    maker = EnvFactory("BipedalWalker-v3")
    episode = record(maker, range(1), max_steps=200)[0]
    assert episode.length > 30
    assert sum(1 for _ in replay(rendering(maker), episode)) == episode.length + 1


def test_frames_show_all_states_of_the_episode() -> None:
    maker = EnvFactory(CorridorEnv)
    episode = play_in_single_envs(
        maker, lambda batch: PolicyStep(np.ones(len(batch), int)), seeds=[2], num_envs=1, max_steps=99
    )[0].episode
    columns = [int(np.nonzero(frame[0, :, 0])[0][0]) for frame in replay(rendering(maker), episode)]
    assert columns == [position * 61 // 8 for position in range(5)]


class Shaky(CorridorEnv):
    """A corridor whose reward has noise from the global random numbers of Python."""

    def step(self, action: Any) -> Any:
        observation, reward, *others = super().step(action)
        return observation, reward + random.random(), *others


class Adrift(CorridorEnv):
    """A corridor with another offset in each instance."""

    made = 0

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        Adrift.made += 1
        self._offset = Adrift.made

    def _observation(self) -> Any:
        return super()._observation() + self._offset


@pytest.mark.parametrize(("env", "step"), [(Shaky, 1), (Adrift, 0)])
def test_a_replay_that_differs_is_detected_at_the_first_difference(env: Any, step: int) -> None:
    maker = EnvFactory(env)
    episode = record(maker, range(7, 8))[0]
    frames = replay(rendering(maker), episode)
    before = [next(frames) for _ in range(step)]
    with pytest.raises(ReplayDivergedError, match=rf"seed 7 came out differently at step {step} of {episode.length} "):
        next(frames)
    assert len(before) == step


def test_other_actions_are_detected() -> None:
    maker = EnvFactory(CorridorEnv)
    episode = record(maker, range(4, 5))[0]
    changed = Episode(**{**vars(episode), "actions": 1 - episode.actions})
    with pytest.raises(ReplayDivergedError, match="at step 1 "):
        list(replay(rendering(maker), changed))


def test_running_statistics_of_a_wrapper_are_detected() -> None:
    def make(render_mode: str | None = None) -> gym.Env[Any, Any]:
        return gym.wrappers.NormalizeObservation(CorridorEnv(render_mode))

    maker = EnvFactory(make)
    played = play_in_single_envs(maker, random_actions(maker, 0), seeds=range(2), num_envs=1, max_steps=25)
    list(replay(rendering(maker), played[0].episode))
    with pytest.raises(ReplayDivergedError):
        list(replay(rendering(maker), played[1].episode))


def test_an_episode_without_digests_is_not_checked() -> None:
    maker = EnvFactory(Shaky)
    episode = record(maker, range(1))[0]
    unchecked = Episode(**{**vars(episode), "digests": None})
    assert sum(1 for _ in replay(rendering(maker), unchecked)) == episode.length + 1


def test_an_env_without_render_mode_raises_at_the_first_frame() -> None:
    def make() -> gym.Env[Any, Any]:
        return CorridorEnv()

    maker = EnvFactory(make)
    episode = record(maker, range(1))[0]
    with pytest.raises(RenderError, match="must take render_mode and pass it on"):
        next(replay(rendering(maker), episode))


class Failing(CorridorEnv):
    """Fails at one place of an episode that is rendered."""

    fails_in, fails_at, error = "render", 0, "Planted."

    def __init__(self, render_mode: str | None = None) -> None:
        if self.fails_in == "make" and render_mode is not None:
            raise RuntimeError(self.error)
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
            raise RuntimeError(self.error)


@pytest.mark.parametrize("error", ["Planted.", "cannot open display."])
@pytest.mark.parametrize(("place", "at"), [("make", 0), ("reset", 0), ("render", 0), ("step", 2), ("render", 2)])
def test_errors_name_the_remedy_for_a_missing_display_if_that_is_the_cause(
    monkeypatch: pytest.MonkeyPatch, place: str, at: int, error: str
) -> None:
    maker = EnvFactory(Failing)
    monkeypatch.setattr(Failing, "fails_in", "nothing")
    episode = record(maker, range(4, 5))[0]
    assert episode.length > 2
    monkeypatch.setattr(Failing, "fails_in", place)
    monkeypatch.setattr(Failing, "fails_at", at)
    monkeypatch.setattr(Failing, "error", error)
    with pytest.raises((EnvError, RenderError)) as caught:
        list(replay(rendering(maker), episode))
    message = str(caught.value)
    assert ("xvfb-run" in message) == ("display" in error)
    assert f"RuntimeError: {error} " in message
    assert ".." not in message
    assert "video_logger=False" in message


@pytest.mark.parametrize("frames_taken", [1, 2, 99])
def test_the_env_is_closed_after_any_number_of_frames(frames_taken: int) -> None:
    closed = []

    class Closing(CorridorEnv):
        def close(self) -> None:
            closed.append(True)

    episode = record(EnvFactory(CorridorEnv), range(1))[0]
    frames = replay(rendering(EnvFactory(Closing)), episode)
    for _, _frame in zip(range(frames_taken), frames, strict=False):
        pass
    frames.close()
    assert closed == [True]
