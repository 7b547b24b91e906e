"""Replays a recorded episode, with or without pictures, and checks that the same episode comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.infos import reward_of
from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.environments.factory import Env, EnvFactory
from rlwandb_callbacks.environments.rendering import render, rendering_error
from rlwandb_callbacks.errors import RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluation.episode_recorder import digest


@dataclass(frozen=True)
class ReplayFrames:
    """Frames of an episode, rendered by a replay during each iteration."""

    make_env: EnvFactory
    episode: Episode

    @property
    def steps(self) -> Sequence[int]:
        """All steps of the episode."""
        return range(self.episode.length + 1)

    def __iter__(self) -> Generator[Pixels]:
        return replay(partial(self.make_env, render=True), self.episode)


def replay(make_env: Callable[[], Env], episode: Episode) -> Generator[Pixels]:
    """Repeats the recorded actions in a new environment, from the recorded seed, and yields a frame of each state.

    Raises:
        ReplayDivergedError: At the first step whose observation or reward differs from the recorded one.
        RenderError: If the environment returns no picture, or fails as it did not while playing without pictures.
    """
    count = 0
    with contextlib.closing(make_env()) as env:
        try:
            for _ in _states(env, episode, episode.length):
                yield render(env, rendered_before=count > 0)
                count += 1
        except (ReplayDivergedError, RenderError):
            raise
        except Exception as error:
            message = f"The environment failed at step {count} when the episode was replayed with pictures"
            raise rendering_error(message, error, rendered_before=count > 0) from error


def check_replay(make_env: Callable[[], Env], episode: Episode, *, max_steps: int) -> None:
    """Repeats up to ``max_steps`` of the recorded actions without pictures.

    Raises:
        ReplayDivergedError: At the first step whose observation or reward differs from the recorded one.
    """
    with contextlib.closing(make_env()) as env:
        for _ in _states(env, episode, max_steps):
            pass


def _states(env: Env, episode: Episode, max_steps: int) -> Iterator[None]:
    """Brings an environment into each state of an episode, one per iteration, and compares it with the recorded one."""
    observation, _ = env.reset(seed=episode.seed)
    reward: Any = 0.0
    for step in range(min(max_steps, episode.length) + 1):
        if step:
            observation, reward, *_ = env.step(episode.actions[step - 1])
        if episode.digests is not None and int(episode.digests[step]) != digest(observation, reward_of(reward)):
            raise ReplayDivergedError(
                f"The episode with seed {episode.seed} came out differently at step {step} of {episode.length} when "
                "its actions were replayed in a new environment."
            )
        yield
