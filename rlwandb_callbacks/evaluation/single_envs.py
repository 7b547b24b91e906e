"""Single environments as a batch: each plays the next episode as soon as its last one has ended."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from rlwandb_callbacks.core.values import RawFrame
from rlwandb_callbacks.environments.action_masks import action_mask, stack_masks
from rlwandb_callbacks.environments.closing import close
from rlwandb_callbacks.environments.factory import Env
from rlwandb_callbacks.environments.game_score import GameScore
from rlwandb_callbacks.environments.rendering import render
from rlwandb_callbacks.evaluation.env_failures import EnvFailure, close_env, env_call, failure_of
from rlwandb_callbacks.evaluation.episode_recorder import EnvStep

STEPS_APART = 4


def batch(space: gym.Space[Any], observations: Sequence[Any]) -> Any:
    """Returns observations of single environments as one batch, as ``gymnasium.vector`` does."""
    empty: Any = create_empty_array(space, n=len(observations))
    return concatenate(space, observations, empty)


def later_observations(env: Env, seed: int, count: int) -> list[Any]:
    """Returns observations of an environment that has been reset, after some random actions each.

    They are fewer if its episode ends, or if it fails, which is left to the evaluation to report.
    """
    observations: list[Any] = []
    env.action_space.seed(seed)
    with contextlib.suppress(Exception):
        for step in range(1, count * STEPS_APART + 1):
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if step % STEPS_APART == 0:
                observations.append(copy.deepcopy(observation))  # some environments change it in place
            if terminated or truncated:
                break
    return observations


class SingleEnvBatch:
    """Single environments that are reset one by one, at most as many as there are episodes.

    ``gymnasium.vector.SyncVectorEnv`` is not used: it must step an environment that has no further episode to play,
    renders all environments at once, and merges their ``info``. ``fresh_envs`` makes a new environment for each
    episode, for environments whose reset does not restore everything; ``ignores_seeds`` says that seeds have no effect.
    """

    resets_together = False

    def __init__(
        self, make_env: Callable[[], Env], num_envs: int, *, fresh_envs: bool = False, ignores_seeds: bool = False
    ) -> None:
        self.num_envs = num_envs
        self._make_env, self._fresh_envs, self._ignores_seeds = make_env, fresh_envs, ignores_seeds
        self._process = os.getpid()
        self._envs: list[Env] = []
        with contextlib.ExitStack() as stack:
            for row in range(num_envs):
                self._envs.append(make_env())
                stack.callback(self._close_row, row)
            self.close = stack.pop_all().close
        self.env_type = type(self._envs[0].unwrapped)
        self._games = [GameScore.of(env) for env in self._envs]
        self._action_space = batch_space(self._envs[0].action_space, num_envs)
        self._observations: dict[int, Any] = {}
        self._unfinished: set[int] = set()  # rows whose episode was cut
        self._failed: set[int] = set()
        self._masks: dict[int, NDArray[np.bool_]] = {}

    def _close_row(self, row: int) -> None:
        close(self._envs[row])

    def reset(self, seeds: Mapping[int, int]) -> Iterator[tuple[int, Any, int | None]]:
        """See :class:`EnvBatch`; every environment takes its seed, which is not reported if it ignores it."""
        for row, seed in seeds.items():
            yield row, self._reset_row(row, seed), None if self._ignores_seeds else seed

    def _reset_row(self, row: int, seed: int) -> Any:
        try:
            with env_call():
                self._observations[row] = self._first_observation(row, seed)
        except Exception as error:  # noqa: BLE001  # environments may raise anything
            self._failed.add(row)
            return EnvFailure(error)
        return self._observations[row]

    def _first_observation(self, row: int, seed: int) -> Any:
        game = self._games[row]
        was_cut = row in self._unfinished or (game is not None and row in self._observations and not game.is_over)
        self._unfinished.discard(row)
        if row in self._failed or (self._fresh_envs and row in self._observations):
            self._renew(row)
        elif was_cut:
            with contextlib.suppress(Exception):  # some environments refuse to reset before an episode has ended
                return self._start_game(row, seed)
            self._renew(row)
        return self._start_game(row, seed)

    def _start_game(self, row: int, seed: int) -> Any:
        game = self._games[row]
        if game is None:
            return self._envs[row].reset(seed=seed)[0]
        game.start()
        observation = self._envs[row].reset(seed=seed)[0]
        game.started()
        return observation

    def _renew(self, row: int) -> None:
        close_env(self._envs[row])
        self._envs[row] = self._make_env()
        self._games[row] = GameScore.of(self._envs[row])
        self._failed.discard(row)

    def score(self, row: int, last_step: EnvStep) -> float | None:
        """See :class:`EnvBatch`."""
        game = self._games[row]
        return None if game is None else game.score_at(is_cut=bool(last_step.truncated))

    def play_on(self, row: int, last_step: EnvStep) -> bool:
        """See :class:`EnvBatch`."""
        game = self._games[row]
        if game is None or not game.can_play_on:
            return False
        if game.shaping.goes_on:
            try:
                with env_call():
                    self._observations[row] = self._envs[row].reset()[0]
            except Exception:  # noqa: BLE001  # environments may raise anything
                self._failed.add(row)
                return False
        return game.can_play_on

    def observations(self) -> Any:
        """See :class:`EnvBatch`; a row without an episode keeps its last observation, or has that of another row."""
        other = next(iter(self._observations.values()))
        rows = [self._observations.get(row, other) for row in range(self.num_envs)]
        return batch(self._envs[0].observation_space, rows)

    def masks(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        """See :class:`EnvBatch`; a row without an episode keeps its last mask, as a final state may allow no action."""
        self._masks |= {row: action_mask(self._envs[row]) for row in rows}
        other = next(iter(self._masks.values()))
        return stack_masks(self._masks.get(row, other) for row in range(self.num_envs))

    def step(self, actions: Any, rows: Sequence[int]) -> Iterator[tuple[int, EnvStep | EnvFailure]]:
        """See :class:`EnvBatch`; only the environments of ``rows`` are stepped."""
        for row, action in zip(range(self.num_envs), iterate(self._action_space, actions), strict=True):
            if row in rows:
                yield row, self._step_row(row, action)

    def _step_row(self, row: int, action: Any) -> EnvStep | EnvFailure:
        try:
            observation, reward, terminated, truncated, info = self._envs[row].step(action)
        except BaseException as error:  # noqa: BLE001  # environments may raise anything
            failure = failure_of(error, self._process)
            self._failed.add(row)
            return failure
        self._observations[row] = observation
        (self._unfinished.discard if terminated or truncated else self._unfinished.add)(row)
        return EnvStep(action, observation, reward, terminated, truncated, info)

    def render(self, row: int) -> RawFrame:
        return render(self._envs[row])
