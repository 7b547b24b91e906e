"""Plays complete evaluation episodes: a policy against a vector of environments, nothing rendered.

Every episode has its own seed and all that are begun are played to their end, so that short episodes are not favoured.
"""

from __future__ import annotations

import contextlib
import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode, PolicyScores, PolicyStep, row_of, stack_scores
from rlwandb_callbacks.core.trace import ObservationTrace
from rlwandb_callbacks.environments import Env, render
from rlwandb_callbacks.film import Camera, RecordedFilm

MAX_OBSERVATION_BYTES = 64 * 2**20
SUCCESS_KEYS = ("is_success", "success")


@dataclass(frozen=True)
class Played:
    """An episode, and its frames when they were recorded while playing."""

    episode: Episode
    film: RecordedFilm | None = None


def play(
    make_env: Callable[[], Env],
    act: Callable[[Any], PolicyStep],
    *,
    seeds: Sequence[int],
    num_envs: int,
    max_steps: int,
    film_bytes: int | None = None,
    keep_observations: bool = False,
    on_begin: Callable[[NDArray[np.bool_]], None] = lambda _: None,
) -> list[Played]:
    """Plays one episode per seed, with one call of the policy for all environments at each step.

    Args:
        make_env: Makes one environment; with ``film_bytes`` given, one that renders.
        act: Acts in a batch of observations.
        seeds: One per episode.
        num_envs: Environments side by side; never more than episodes.
        max_steps: Longest episode; longer ones are cut and marked.
        film_bytes: Record each episode, in at most so many bytes.
        keep_observations: The episodes bring along what was observed, thinned to 64 MiB in all.
        on_begin: Told before a step in which rows of the batch an episode begins, for policies with memory.

    Returns:
        One entry per seed, in that order.
    """
    trace_bytes = MAX_OBSERVATION_BYTES // max(1, len(seeds)) if keep_observations else 0
    with contextlib.ExitStack() as opened:
        lanes: list[_Lane] = []
        for _ in range(min(num_envs, len(seeds))):
            lanes.append(_Lane(make_env(), max_steps, film_bytes, trace_bytes))
            opened.callback(lanes[-1].close)
        envs = SyncVectorEnv([lane.itself for lane in lanes], autoreset_mode=AutoresetMode.DISABLED)
        opened.pop_all()  # from here on the vector closes them, and only once
        opened.callback(envs.close)
        played = dict(_play_all(envs, lanes, act, iter(enumerate(seeds)), on_begin))
    return [played[index] for index in range(len(seeds))]


def _play_all(
    envs: SyncVectorEnv,
    lanes: Sequence[_Lane],
    act: Callable[[Any], PolicyStep],
    waiting: Iterator[tuple[int, int]],
    on_begin: Callable[[NDArray[np.bool_]], None],
) -> Iterator[tuple[int, Played]]:
    for lane in lanes:
        lane.begin(*next(waiting))
    observations, _ = envs.reset()
    on_begin(np.ones(len(lanes), dtype=np.bool_))
    while any(lane.playing for lane in lanes):
        step = act(observations)
        for row, lane in enumerate(lanes):
            lane.note(step, row)
        observations, _, terminated, truncated, _ = envs.step(step.actions)
        ended = np.logical_or(terminated, truncated)
        for lane in (lane for lane, has_ended in zip(lanes, ended, strict=True) if has_ended):
            yield lane.index, lane.result()
            lane.begin(*next(waiting, (-1, None)))
        if ended.any():
            observations, _ = envs.reset(options={"reset_mask": ended})
            on_begin(ended & [lane.playing for lane in lanes])


class _Lane(gym.Wrapper[Any, Any, Any, Any]):
    """One environment of the vector: records the episode that it plays, and rests when none is left."""

    def __init__(self, env: Env, max_steps: int, film_bytes: int | None, trace_bytes: int = 0) -> None:
        super().__init__(env)
        self._max_steps, self._film_bytes, self._trace_bytes = max_steps, film_bytes, trace_bytes
        self._observation: Any = None
        self.begin(-1, None)

    def begin(self, index: int, seed: int | None) -> None:
        self.index, self._seed = index, seed
        self._actions: list[Any] = []
        self._rewards: list[float] = []
        self._scores: list[PolicyScores] = []
        self._values: list[float] = []
        self._chosen_q: list[float] = []
        self._digests: list[int] = []
        self._camera = None if self._film_bytes is None else Camera(self._film_bytes)
        self._trace = ObservationTrace(self._trace_bytes) if self._trace_bytes else None
        self._ending: dict[str, Any] = {}

    def itself(self) -> _Lane:
        return self

    @property
    def playing(self) -> bool:
        return self._seed is not None

    def note(self, step: PolicyStep, row: int) -> None:
        if not self.playing:
            return
        if step.scores is not None:
            self._scores.append(row_of(step.scores, row))
        if step.values is not None:
            self._values.append(float(step.values[row]))
        if step.chosen_q is not None:
            self._chosen_q.append(float(step.chosen_q[row]))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.playing:
            self._observation, _ = self.env.reset(seed=self._seed)
            self._keep(0.0)
        return self._observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.playing:
            return self._observation, 0.0, False, False, {}
        self._actions.append(_kept(action))
        self._observation, reward, terminated, truncated, info = self.env.step(action)
        self._rewards.append(float(reward))
        self._keep(float(reward))
        is_cut = len(self._rewards) >= self._max_steps and not (terminated or truncated)
        if terminated or truncated or is_cut:
            self._ending = {
                "terminated": bool(terminated),
                "truncated": bool(truncated) or is_cut,
                "cut_at": self._max_steps if is_cut else None,
                "success": _success(info),
            }
        return self._observation, float(reward), bool(terminated), bool(truncated) or is_cut, {}

    def _keep(self, reward: float) -> None:
        self._digests.append(digest(self._observation, reward))
        if self._trace is not None:
            self._trace.append(self._observation)
        if self._camera is not None:
            self._camera.take(render(self.env))

    def result(self) -> Played:
        observations, stride = (None, 1) if self._trace is None else self._trace.kept(len(self._rewards))
        episode = Episode(
            actions=np.stack(self._actions),
            rewards=np.array(self._rewards, dtype=np.float64),
            seed=self._seed,
            scores=stack_scores(self._scores),
            values=np.array(self._values, dtype=np.float64) if self._values else None,
            chosen_q=np.array(self._chosen_q, dtype=np.float64) if self._chosen_q else None,
            digests=np.array(self._digests, dtype=np.uint32),
            observations=observations,
            observation_stride=stride,
            **self._ending,
        )
        return Played(episode, None if self._camera is None else self._camera.film())


def _kept(action: Any) -> NDArray[Any]:
    """A copy of an action; a dict or tuple as an object, so that actions of all kinds stack to an array."""
    if not isinstance(action, dict | tuple):
        return np.array(action)
    entry = np.empty((), dtype=np.object_)
    entry[()] = copy.deepcopy(action)
    return entry


def digest(observation: Any, reward: float) -> int:
    """Fingerprint of an observation and the reward that came with it: CRC-32 over their bytes, in one fixed order.

    Args:
        observation: Array, number or text, or dicts and tuples of them.
        reward: Of the step that led there; 0 after a reset.
    """
    checksum = zlib.crc32(np.float64(reward).tobytes())
    for leaf in _leaves(observation):
        checksum = zlib.crc32(leaf, checksum)
    return checksum


def _leaves(observation: Any) -> Iterator[bytes]:
    if isinstance(observation, dict):
        for key in sorted(observation, key=str):
            yield from _leaves(observation[key])
    elif isinstance(observation, tuple | list):
        for entry in observation:
            yield from _leaves(entry)
    elif isinstance(observation, str):
        yield observation.encode()
    else:
        yield np.ascontiguousarray(observation).tobytes()


def _success(info: dict[str, Any]) -> bool | None:
    found = next((info[key] for key in SUCCESS_KEYS if key in info), None)
    return None if found is None else bool(np.all(found))
