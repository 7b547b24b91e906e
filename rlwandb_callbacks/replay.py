"""Plays a recorded episode again, this time with pictures, and checks on the way that it is the same episode."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from rlwandb_callbacks.core.canvas import Pixels
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.environments import Env
from rlwandb_callbacks.episode_log import digest
from rlwandb_callbacks.errors import RenderError, ReplayDivergedError
from rlwandb_callbacks.headless import HEADLESS_REMEDY
from rlwandb_callbacks.rendering import render


def replay(make_env: Callable[[], Env], episode: Episode) -> Generator[Pixels]:
    """Takes the recorded actions again in a fresh environment, from the recorded seed.

    Args:
        make_env: Makes an environment that renders.
        episode: With a seed and digests.

    Yields:
        ``episode.length + 1`` frames of shape ``[H, W, 3]``; the last one shows the last state.

    Raises:
        ReplayDivergedError: At the first step whose observation or reward is not the recorded one.
        RenderError: If the environment gives no picture.
    """
    env = make_env()
    try:
        observation, _ = _with_pictures(lambda: env.reset(seed=episode.seed))
        _check(episode, 0, digest(observation, 0.0))
        yield render(env)
        for step, action in enumerate(episode.actions, start=1):
            observation, reward, *_ = _with_pictures(partial(env.step, action))
            _check(episode, step, digest(observation, float(reward)))
            yield render(env)
    finally:
        env.close()


def _with_pictures(call: Callable[[], Any]) -> Any:
    """Tells trouble that an environment has only where it renders, as it was played without before."""
    try:
        return call()
    except Exception as error:
        raise RenderError(
            f"The environment failed where it renders: {type(error).__name__}: {error}. {HEADLESS_REMEDY}"
        ) from error


def _check(episode: Episode, step: int, seen: int) -> None:
    if episode.digests is not None and int(episode.digests[step]) != seen:
        raise ReplayDivergedError(
            f"The episode with seed {episode.seed} came out differently at step {step} of {episode.length} when "
            "its actions "
            "were played again in a fresh environment."
        )
