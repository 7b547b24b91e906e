"""Plays complete evaluation episodes: one policy in several environments side by side.

Every episode has its own seed, and every episode that begins is played to its end, so that short episodes are not
overrepresented. Nothing is rendered unless frames are recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.evaluation.episode_recorder import EnvStep, EpisodeRecorder, PlayedEpisode, RecordingOptions


class EnvBatch(Protocol):
    """B environments, each with a row of the batch that the policy sees."""

    num_envs: int  # B
    resets_together: bool  # they cannot be reset one by one: those that have ended wait for the others

    def reset(self, seeds: Mapping[int, int]) -> Iterator[tuple[int, Any, int | None]]:
        """Resets the environments of some rows; yields row, observation, and seed: None if it cannot take its own."""

    def observations(self) -> Any:
        """Returns the current observations of all rows, batched as ``gymnasium.vector`` does."""

    def masks(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        """Returns the allowed actions, shape ``[B, A]``; those of other rows than ``rows`` may be outdated."""

    def step(self, actions: Any, rows: Sequence[int]) -> Iterator[tuple[int, EnvStep]]:
        """Takes a batch of actions and yields row and step for each of ``rows``; must be iterated to the end."""

    def render(self, row: int) -> Pixels:
        """Returns a picture of the current state of one environment, or raises a ``RenderError``."""

    def close(self) -> None:
        """Closes all environments."""


def play(
    envs: EnvBatch,
    act: Callable[[Any], PolicyStep],
    *,
    seeds: Sequence[int],
    options: RecordingOptions,
    on_begin: Callable[[NDArray[np.bool_]], None] = lambda _: None,
    on_masks: Callable[[NDArray[np.bool_]], None] | None = None,
) -> list[PlayedEpisode]:
    """Plays one episode per seed, with one call of the policy for all environments at each step.

    Args:
        envs: They must render if frames are recorded, and are not closed.
        act: Policy, called with a batch of observations.
        seeds: One seed per episode; the result has the same order.
        options: What to record.
        on_begin: Called after a reset with the rows in which an episode begins, shape ``[B]``.
        on_masks: Called before each step with the allowed actions, shape ``[B, A]``; None to not query them.
    """
    waiting = deque(enumerate(seeds))
    playing: dict[int, tuple[int, EpisodeRecorder]] = {}  # by row: index of the episode, and its recorder
    played: dict[int, PlayedEpisode] = {}
    while waiting or playing:
        free = [row for row in range(envs.num_envs) if row not in playing]
        if free and waiting and not (envs.resets_together and playing):
            begun = {row: waiting.popleft() for row in free[: len(waiting)]}
            for row, observation, seed in envs.reset({row: seed for row, (_, seed) in begun.items()}):
                playing[row] = begun[row][0], EpisodeRecorder(options, seed, observation, partial(envs.render, row))
            on_begin(np.isin(np.arange(envs.num_envs), free if envs.resets_together else list(begun)))
        rows = sorted(playing)
        if on_masks is not None:
            on_masks(envs.masks(rows))
        output = act(envs.observations())
        for row, step in envs.step(output.actions, rows):
            index, recorder = playing[row]
            if recorder.add_step(output, row, step):
                played[index] = recorder.result()
                del playing[row]
    return [played[index] for index in range(len(seeds))]
