"""Plays complete evaluation episodes: one policy in several environments side by side.

Every episode has its own seed, and every episode that begins is played to its end, so that short episodes are not
overrepresented. Nothing is rendered unless frames are recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.core.values import RawFrame
from rlwandb_callbacks.evaluation.env_failures import EnvFailure
from rlwandb_callbacks.evaluation.episode_recorder import EnvStep, EpisodeRecorder, PlayedEpisode, RecordingOptions
from rlwandb_callbacks.evaluation.stopping import StoppedError, Stopping

RESET, STEP = "reset()", "step()"
POLICY, MASK, RECORD = "The policy", "The action mask of the environment", "Recording a step"


class EnvBatch(Protocol):
    """B environments, each with a row of the batch that the policy sees."""

    num_envs: int  # B
    env_type: type  # without wrappers
    resets_together: bool  # they cannot be reset one by one: those that have ended wait for the others

    def reset(self, seeds: Mapping[int, int]) -> Iterator[tuple[int, Any, int | None]]:
        """Resets the environments of some rows; yields row, observation, and seed: None if it cannot take its own.

        An environment that fails gives an ``EnvFailure`` in place of the observation.
        """

    def observations(self) -> Any:
        """Returns the current observations of all rows, batched as ``gymnasium.vector`` does."""

    def masks(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        """Returns the allowed actions, shape ``[B, A]``; those of other rows than ``rows`` may be outdated."""

    def step(self, actions: Any, rows: Sequence[int]) -> Iterator[tuple[int, EnvStep | EnvFailure]]:
        """Takes a batch of actions and yields row and step for each of ``rows``; must be iterated to the end.

        A row with an ``EnvFailure`` has no episode any more, and can be reset.
        """

    def score(self, row: int, last_step: EnvStep) -> float | None:
        """Returns the score of the game in a row; None if it is not known, or if it is the return of the episode."""

    def play_on(self, row: int, last_step: EnvStep) -> bool:
        """Called when the episode in a row has ended: returns whether its game goes on, and prepares for the rest."""

    def render(self, row: int) -> RawFrame:
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
    on_failure: Callable[[Exception], object] | None = None,
    rows: Sequence[int] | None = None,
    stopping: Stopping | None = None,
) -> list[PlayedEpisode]:
    """Plays one episode per seed, with one call of the policy for all environments at each step.

    An episode whose environment fails is left out of the result. If no episode could be played in any of the
    environments, no further one is tried. Episodes that are stopped, or have not begun by then, are left out too.

    Args:
        envs: They must render if frames are recorded, and are not closed.
        act: Policy, called with a batch of observations.
        seeds: One seed per episode; the result has the same order.
        options: What to record.
        on_begin: Called after a reset with the rows in which an episode begins, shape ``[B]``.
        on_masks: Called before each step with the allowed actions, shape ``[B, A]``; None to not query them.
        on_failure: Called with the error of each episode that is left out; by default the error is raised.
        rows: Row of each episode, if environments differ; by default the first one that is free.
        stopping: Says at each step whether to stop, and ends calls that hang; by default nothing does.
    """
    rollout = _Rollout(envs, act, options, on_begin, on_masks, _Failures(on_failure), deque(enumerate(seeds)), rows)
    return rollout.play(stopping or Stopping())


@dataclass
class _Rollout:
    """Episodes that wait, that are being played, and that were played; see :func:`play`."""

    envs: EnvBatch
    act: Callable[[Any], PolicyStep]
    options: RecordingOptions
    on_begin: Callable[[NDArray[np.bool_]], None]
    on_masks: Callable[[NDArray[np.bool_]], None] | None
    failures: _Failures
    waiting: deque[tuple[int, int]]  # index and seed
    rows: Sequence[int] | None
    playing: dict[int, _Playing] = field(default_factory=dict)  # by row
    played: dict[int, PlayedEpisode] = field(default_factory=dict)  # by index
    call: str = RESET  # that is under way
    asked: Sequence[tuple[int, int]] = ()  # row and seed of the environments of this call
    answers: int = 0  # of these environments, in the order of ``asked``

    def play(self, stopping: Stopping) -> list[PlayedEpisode]:
        count = len(self.waiting)
        try:
            with stopping.interruptible(self._describe_call):
                while self.playing or (self.waiting and (self.played or self.failures.count < self.envs.num_envs)):
                    stopping.check()
                    self._begin_episodes()
                    if self.playing:
                        self._step()
        except StoppedError as error:
            self.played |= {each.position: each.result for each in self.playing.values() if each.result is not None}
            for _ in range(count - len(self.played) - self.failures.count):
                self.failures.add(error)
        return [self.played[index] for index in sorted(self.played)]

    def _begin_episodes(self) -> None:
        free = [row for row in range(self.envs.num_envs) if row not in self.playing]
        if not free or not self.waiting or (self.envs.resets_together and self.playing):
            return
        begun = _take(self.waiting, free, self.rows)
        self.call, self.asked, self.answers = RESET, [(row, seed) for row, (_, seed) in begun.items()], 0
        for row, observation, seed in self.envs.reset(dict(self.asked)):
            self.answers += 1
            if isinstance(observation, EnvFailure):
                self.failures.add(observation.error)
            else:
                recorder = EpisodeRecorder(self.options, seed, observation, partial(self.envs.render, row))
                self.playing[row] = _Playing(begun[row], recorder, self.options.max_steps, self.failures)
        self.on_begin(np.isin(np.arange(self.envs.num_envs), free if self.envs.resets_together else list(begun)))

    def _step(self) -> None:
        active = sorted(self.playing)
        if self.on_masks is not None:
            self.call = MASK
            self.on_masks(self.envs.masks(active))
        self.call = POLICY
        output = self.act(self.envs.observations())
        self.call, self.asked, self.answers = STEP, [(row, self.playing[row].seed) for row in active], 0
        for row, step in self.envs.step(output.actions, active):
            self.call = RECORD
            self._add_step(output, row, step)
            self.call, self.answers = STEP, self.answers + 1

    def _add_step(self, output: PolicyStep, row: int, step: EnvStep | EnvFailure) -> None:
        episode = self.playing[row]
        if not episode.add_step(output, row, step):
            return
        if episode.may_play_on and self.envs.play_on(row, episode.last_step):
            self.on_begin(np.isin(np.arange(self.envs.num_envs), row))
            return
        del self.playing[row]
        if episode.result is not None:
            self.played[episode.position] = episode.finished(self.envs, row)

    def _describe_call(self) -> str:
        """Returns the call that is under way, as the subject of a sentence."""
        if self.call not in (RESET, STEP) or self.answers >= len(self.asked):
            return self.call
        if self.envs.resets_together:
            return f"{self.call} of the vector environment"
        row, seed = self.asked[self.answers]
        if self.call == RESET:
            return f"{RESET} of the environment with seed {seed}"
        return f"{STEP} of the environment (step {self.playing[row].num_steps + 1} of the episode with seed {seed})"


def _take(
    waiting: deque[tuple[int, int]], free: Sequence[int], rows: Sequence[int] | None
) -> dict[int, tuple[int, int]]:
    """Takes episodes that wait, as many as can begin now; returns the index and the seed of each by its row."""
    if rows is None:
        return {row: waiting.popleft() for row in free[: len(waiting)]}
    begun: dict[int, tuple[int, int]] = {}
    for episode in list(waiting):
        row = rows[episode[0]]
        if row in free and row not in begun:
            waiting.remove(episode)
            begun[row] = episode
    return begun


class _Playing:
    """Episode in one row, and then the rest of its game, of which only the score is of interest."""

    last_step: EnvStep

    def __init__(
        self, index_and_seed: tuple[int, int], recorder: EpisodeRecorder, max_steps: int, failures: _Failures
    ) -> None:
        self.position, self.seed = index_and_seed  # position among all episodes
        self.result: PlayedEpisode | None = None  # once the episode has ended
        self._recorder, self._failures = recorder, failures
        self._max_steps = self._steps_left = max_steps
        self._has_failed = False

    def add_step(self, output: PolicyStep, row: int, step: EnvStep | EnvFailure) -> bool:
        """Adds a step, and returns whether the episode, or a further part of its game, has ended or failed."""
        try:
            if isinstance(step, EnvFailure):
                raise step.error
            return self._add(output, row, step)
        except Exception as error:  # noqa: BLE001  # environments may raise and return anything
            self._has_failed = True
            if self.result is None:
                self._failures.add(error)
            return True

    def _add(self, output: PolicyStep, row: int, step: EnvStep) -> bool:
        self._steps_left -= 1
        is_cut = self._steps_left <= 0 and not step.terminated
        self.last_step = step._replace(truncated=bool(step.truncated) or is_cut)
        if self.result is not None:
            return bool(step.terminated) or bool(self.last_step.truncated)
        has_ended = self._recorder.add_step(output, row, step)
        if has_ended:
            self.result = self._recorder.result()
        return has_ended

    @property
    def num_steps(self) -> int:
        """Steps so far."""
        return self._max_steps - self._steps_left

    @property
    def may_play_on(self) -> bool:
        """Whether the latest step neither failed nor reached a time limit."""
        return not self._has_failed and self._steps_left > 0 and not self.last_step.truncated

    def finished(self, envs: EnvBatch, row: int) -> PlayedEpisode:
        """Returns the episode, which has ended, with the score of its game and its place in a vector."""
        if self.result is None:
            raise RuntimeError("The episode has not ended.")
        score = None if self._has_failed else envs.score(row, self.last_step)
        env_index = row if envs.resets_together else 0
        return replace(self.result, episode=replace(self.result.episode, score=score, env_index=env_index))


class _Failures:
    """Counts the episodes that fail and passes on their errors, or raises the first one."""

    def __init__(self, on_failure: Callable[[Exception], object] | None) -> None:
        self._on_failure = on_failure
        self.count = 0

    def add(self, error: Exception) -> None:
        if self._on_failure is None:
            raise error
        self.count += 1
        self._on_failure(error)
