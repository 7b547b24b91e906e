"""Plays a recorded episode again, with pictures or without, and checks on the way that it is the same episode."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.infos import reward_of
from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.environments.factory import Env, EnvMaker
from rlwandb_callbacks.environments.headless import drawing_error
from rlwandb_callbacks.environments.rendering import render
from rlwandb_callbacks.errors import ReplayDivergedError
from rlwandb_callbacks.evaluation.episode_recorder import digest


@dataclass(frozen=True)
class ReplayFrames:
    """The frames of an episode, made by playing it again whenever they are gone through.

    Args:
        make_env: Makes an environment that renders.
        episode: With a seed and digests.
    """

    make_env: EnvMaker
    episode: Episode

    @property
    def steps(self) -> Sequence[int]:
        """Every one."""
        return range(self.episode.length + 1)

    def __iter__(self) -> Iterator[Pixels]:
        return replay(partial(self.make_env, render=True), self.episode)


def replay(make_env: Callable[[], Env], episode: Episode) -> Generator[Pixels]:
    """Takes the recorded actions again in a fresh environment, from the recorded seed.

    Args:
        make_env: Makes an environment that renders.
        episode: With a seed and digests.

    Yields:
        ``episode.length + 1`` frames of shape ``[H, W, 3]``; the last one shows the last state.

    Raises:
        ReplayDivergedError: At the first step whose observation or reward is not the recorded one.
        RenderError: If the environment gives no picture, or fails as it did not when it was played without pictures.
    """
    env = make_env()
    frames_made = 0

    def attempt(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            what = f"The environment failed at step {frames_made} when the episode was played again with pictures"
            raise drawing_error(what, error, has_drawn=frames_made > 0) from error

    try:
        for _ in _retrace(env, episode, episode.length, attempt):
            frame = render(env, has_drawn=frames_made > 0)
            frames_made += 1
            yield frame
    finally:
        env.close()


def check_replay(make_env: Callable[[], Env], episode: Episode, *, max_steps: int) -> None:
    """Takes the recorded actions again without pictures, up to a step.

    Raises:
        ReplayDivergedError: At the first step whose observation or reward is not the recorded one.
    """
    env = make_env()
    try:
        for _ in _retrace(env, episode, max_steps, lambda call: call()):
            pass
    finally:
        env.close()


def _retrace(env: Env, episode: Episode, max_steps: int, attempt: Callable[[Any], Any]) -> Iterator[None]:
    observation, _ = attempt(partial(env.reset, seed=episode.seed))
    _check(episode, 0, digest(observation, 0.0))
    yield
    for step, action in enumerate(episode.actions[:max_steps], start=1):
        observation, reward, *_ = attempt(partial(env.step, action))
        _check(episode, step, digest(observation, reward_of(reward)))
        yield


def _check(episode: Episode, step: int, seen: int) -> None:
    if episode.digests is not None and int(episode.digests[step]) != seen:
        raise ReplayDivergedError(
            f"The episode with seed {episode.seed} came out differently at step {step} of {episode.length} when "
            "its actions were played again in a fresh environment."
        )
