"""Plays complete evaluation episodes: a policy against a vector of environments, nothing rendered.

Every episode has its own seed and all that are begun are played to their end, so that short episodes are not favoured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.core.infos import reward_of
from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.environments.action_masks import mask_of, stacked
from rlwandb_callbacks.environments.factory import Env
from rlwandb_callbacks.environments.rendering import render
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.evaluation.episode_recorder import EpisodeRecorder, PlayedEpisode, RecordingOptions


def play(
    make_env: Callable[[], Env],
    act: Callable[[Any], PolicyStep],
    *,
    seeds: Sequence[int],
    num_envs: int,
    max_steps: int,
    film_bytes: int | None = None,
    info_keys: Sequence[str] | None = None,
    fresh_envs: bool = False,
    trace_bytes: int = 0,
    on_begin: Callable[[NDArray[np.bool_]], None] = lambda _: None,
    on_masks: Callable[[NDArray[np.bool_]], None] | None = None,
) -> list[PlayedEpisode]:
    """Plays one episode per seed, with one call of the policy for all environments at each step.

    Args:
        make_env: Makes one environment; with ``film_bytes`` given, one that renders.
        act: Acts in a batch of observations.
        seeds: One per episode.
        num_envs: Environments side by side; never more than episodes.
        max_steps: Longest episode; longer ones are cut and marked.
        film_bytes: Record each episode, in at most so many bytes; where rendering fails, that one film is lost.
        info_keys: Keys of ``info`` to keep; None for all numeric ones.
        fresh_envs: Play each episode in an environment of its own, for those that a reset does not bring back to their
            beginning in everything.
        trace_bytes: Each episode brings along what was observed, thinned to so many bytes; 0 for nothing.
        on_begin: Told before a step in which rows of the batch an episode begins, for policies with memory.
        on_masks: Told before each step which actions the environments allow; None where they are not to be asked.

    Returns:
        One entry per seed, in that order.
    """
    options = RecordingOptions(max_steps, film_bytes, info_keys, trace_bytes)
    with contextlib.ExitStack() as opened:
        lanes: list[_EnvSlot] = []
        for _ in range(min(num_envs, len(seeds))):
            lanes.append(_EnvSlot(make_env(), options, make_env if fresh_envs else None))
            opened.callback(lanes[-1].close)
        envs = SyncVectorEnv([lane.itself for lane in lanes], autoreset_mode=AutoresetMode.DISABLED)
        opened.pop_all()  # from here on the vector closes them, and only once
        opened.callback(envs.close)
        played = dict(_play_all(envs, lanes, act, iter(enumerate(seeds)), on_begin, on_masks))
    return [played[index] for index in range(len(seeds))]


def _play_all(
    envs: SyncVectorEnv,
    lanes: Sequence[_EnvSlot],
    act: Callable[[Any], PolicyStep],
    waiting: Iterator[tuple[int, int]],
    on_begin: Callable[[NDArray[np.bool_]], None],
    on_masks: Callable[[NDArray[np.bool_]], None] | None,
) -> Iterator[tuple[int, PlayedEpisode]]:
    for lane in lanes:
        lane.log.begin(*next(waiting))
    observations, _ = envs.reset()
    on_begin(np.ones(len(lanes), dtype=np.bool_))
    while any(lane.log.playing for lane in lanes):
        if on_masks is not None:
            on_masks(stacked(lane.mask() for lane in lanes))
        step = act(observations)
        for row, lane in enumerate(lanes):
            lane.log.note(step, row)
        observations, _, terminated, truncated, _ = envs.step(step.actions)
        ended = np.logical_or(terminated, truncated)
        for lane in (lane for lane, has_ended in zip(lanes, ended, strict=True) if has_ended):
            yield lane.log.index, lane.log.result()
            lane.log.begin(*next(waiting, (-1, None)))
        if ended.any():
            observations, _ = envs.reset(options={"reset_mask": ended})
            on_begin(ended & [lane.log.playing for lane in lanes])


class _EnvSlot(gym.Wrapper[Any, Any, Any, Any]):
    """One environment of the vector: takes down the episode that it plays, and rests when none is left.

    Args:
        env: The environment.
        options: Of the log.
        make_env: Where given, makes another environment for each further episode.
    """

    def __init__(self, env: Env, options: RecordingOptions, make_env: Callable[[], Env] | None) -> None:
        super().__init__(env)
        self.log = EpisodeRecorder(options)
        self._has_drawn = False
        self._make_env, self._is_used = make_env, False
        self._observation: Any = None
        self._mask: NDArray[np.bool_] | None = None

    def itself(self) -> _EnvSlot:
        return self

    def mask(self) -> NDArray[np.bool_]:
        """Of the actions that are allowed; while it rests, the last one, as few environments allow any at the end."""
        if self.log.playing or self._mask is None:
            self._mask = mask_of(self.env)
        return self._mask

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.log.playing:
            self._renew()
            self._observation, _ = self.env.reset(seed=self.log.seed)
            self.log.see(self._observation, self._picture())
        return self._observation, {}

    def _renew(self) -> None:
        if self._is_used and self._make_env is not None:
            self.env.close()
            self.env = self._make_env()
        self._is_used = True

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.log.playing:
            return self._observation, 0.0, False, False, {}
        self._observation, given, terminated, truncated, info = self.env.step(action)
        reward = reward_of(given)
        ending = self.log.advance(action, reward, bool(terminated), bool(truncated), info)
        self.log.see(self._observation, self._picture(), reward)
        return self._observation, reward, *ending, {}

    def _picture(self) -> Pixels | None:
        if not self.log.is_filmed:
            return None
        try:
            picture = render(self.env, has_drawn=self._has_drawn)
        except RenderError as error:
            self.log.lose_film(error)
            return None
        self._has_drawn = True
        return picture
