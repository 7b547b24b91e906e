"""Plays episodes without an evaluator, and draws them without a video."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.core.episode import Episode, PolicyStep
from rlwandb_callbacks.environments.factory import Env
from rlwandb_callbacks.evaluation.episode_recorder import PlayedEpisode, RecordingOptions
from rlwandb_callbacks.evaluation.rollout import play
from rlwandb_callbacks.evaluation.single_envs import SingleEnvBatch
from rlwandb_callbacks.media.drawing import enlarge
from rlwandb_callbacks.media.panel import Panel


def play_in_single_envs(
    make_env: Callable[[], Env],
    act: Callable[[Any], PolicyStep],
    *,
    seeds: Sequence[int],
    num_envs: int,
    fresh_envs: bool = False,
    **options: Any,
) -> list[PlayedEpisode]:
    """Plays one episode per seed; ``options`` are those of :class:`RecordingOptions`."""
    with contextlib.closing(SingleEnvBatch(make_env, min(num_envs, len(seeds)), fresh_envs=fresh_envs)) as envs:
        return play(envs, act, seeds=seeds, options=RecordingOptions(**options))


def with_panel(frames: Iterable[np.ndarray], episode: Episode, actions: ActionSpec) -> list[np.ndarray]:
    """Returns the frames of an episode, from its first state on, each with its panel."""
    enlarged = [enlarge(frame) for frame in frames]
    panel = Panel.for_frames(enlarged[0], episode, actions)
    return [panel.beside(frame, step) for step, frame in enumerate(enlarged)]
