"""Replays a recorded episode, with or without pictures, and checks that the same episode comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.infos import reward_of
from rlwandb_callbacks.core.values import Pixels, RawFrame
from rlwandb_callbacks.environments.factory import Env, EnvFactory
from rlwandb_callbacks.environments.rendering import render, rendering_error
from rlwandb_callbacks.errors import RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluation.env_failures import closing_env, closing_limit, env_call
from rlwandb_callbacks.evaluation.fingerprint import ReplayCheck
from rlwandb_callbacks.media.pixel_range import PixelRange


@dataclass(frozen=True)
class ReplayFrames:
    """Frames of an episode, rendered by a replay during each iteration.

    Iteration raises a ``PixelRangeError`` where frames show that earlier ones were converted by a wrong range; the next
    iteration has the right one.
    """

    make_env: EnvFactory
    episode: Episode
    pixel_range: PixelRange = field(default_factory=PixelRange, repr=False, compare=False)

    @property
    def steps(self) -> Sequence[int]:
        """All steps of the episode."""
        return range(self.episode.length + 1)

    def __iter__(self) -> Generator[Pixels]:
        make_env = partial(_env_of(self.episode, self.make_env), render=True)
        with contextlib.closing(replay(make_env, self.episode)) as frames:
            for frame in frames:
                yield self.pixel_range.to_uint8(frame)


def replay(make_env: Callable[[], Env], episode: Episode) -> Generator[RawFrame]:
    """Repeats the recorded actions in a new environment, from the recorded seed, and yields a frame of each state.

    Raises:
        ReplayDivergedError: At the first step whose observation or reward differs from the recorded one.
        RenderError: If the environment returns no picture, or fails as it did not while playing without pictures.
    """
    count = 0
    with env_call(), closing_env(make_env(), stopping=closing_limit()) as env:
        try:
            with env_call():
                for _ in _states(env, episode, episode.length):
                    yield render(env)
                    count += 1
        except (ReplayDivergedError, RenderError):
            raise
        except Exception as error:
            message = f"The environment failed at step {count} when the episode was replayed with pictures"
            raise rendering_error(message, error) from error


def _env_of(episode: Episode, make_env: EnvFactory) -> EnvFactory:
    """Returns what makes the environment of a vector that played an episode."""
    return replace(make_env, index=episode.env_index) if episode.env_index else make_env


def check_replay(make_env: EnvFactory, episode: Episode, *, max_steps: int) -> None:
    """Repeats up to ``max_steps`` of the recorded actions without pictures.

    Raises:
        ReplayDivergedError: At the first step whose observation or reward differs from the recorded one.
    """
    with env_call(), closing_env(_env_of(episode, make_env)()) as env:
        for _ in _states(env, episode, max_steps):
            pass


def _states(env: Env, episode: Episode, max_steps: int) -> Iterator[None]:
    """Brings an environment into each state of an episode, one per iteration, and compares it with the recorded one."""
    check = ReplayCheck(episode)
    observation, _ = env.reset(seed=episode.seed)
    reward: Any = 0.0
    for step in range(min(max_steps, episode.length) + 1):
        if step:
            observation, reward, *_ = env.step(episode.actions[step - 1])
        if not check.passes(step, observation, reward_of(reward)):
            raise ReplayDivergedError(
                f"The episode with seed {episode.seed} came out differently at step {step} of {episode.length} when "
                "its actions were replayed in a new environment."
            )
        yield
