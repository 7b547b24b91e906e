"""Single environments as a batch: each plays the next episode as soon as its last one has ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.environments.action_masks import action_mask, stack_masks
from rlwandb_callbacks.environments.factory import Env
from rlwandb_callbacks.environments.rendering import render
from rlwandb_callbacks.evaluation.episode_recorder import EnvStep


def batch(space: gym.Space[Any], observations: Sequence[Any]) -> Any:
    """Returns observations of single environments as one batch, as ``gymnasium.vector`` does."""
    empty: Any = create_empty_array(space, n=len(observations))
    return concatenate(space, observations, empty)


class SingleEnvBatch:
    """Single environments that are reset one by one, at most as many as there are episodes.

    ``gymnasium.vector.SyncVectorEnv`` is not used: it must step an environment that has no further episode to play,
    renders all environments at once, and merges their ``info``. ``fresh_envs`` makes a new environment for each
    episode, for environments whose reset does not restore everything.
    """

    resets_together = False

    def __init__(self, make_env: Callable[[], Env], num_envs: int, *, fresh_envs: bool = False) -> None:
        self.num_envs = num_envs
        self._make_env, self._fresh_envs = make_env, fresh_envs
        self._envs: list[Env] = []
        with contextlib.ExitStack() as stack:
            for row in range(num_envs):
                self._envs.append(make_env())
                stack.callback(self._close_row, row)
            self.close = stack.pop_all().close
        self._action_space = batch_space(self._envs[0].action_space, num_envs)
        self._observations: dict[int, Any] = {}
        self._masks: dict[int, NDArray[np.bool_]] = {}
        self._has_rendered = False

    def _close_row(self, row: int) -> None:
        self._envs[row].close()

    def reset(self, seeds: Mapping[int, int]) -> Iterator[tuple[int, Any, int | None]]:
        """See :class:`EnvBatch`; every environment takes its seed."""
        for row, seed in seeds.items():
            if self._fresh_envs and row in self._observations:
                self._close_row(row)
                self._envs[row] = self._make_env()
            self._observations[row], _ = self._envs[row].reset(seed=seed)
            yield row, self._observations[row], seed

    def observations(self) -> Any:
        """See :class:`EnvBatch`; a row without an episode keeps its last observation."""
        return batch(self._envs[0].observation_space, [self._observations[row] for row in range(self.num_envs)])

    def masks(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        """See :class:`EnvBatch`; a row without an episode keeps its last mask, as a final state may allow no action."""
        self._masks |= {row: action_mask(self._envs[row]) for row in rows}
        return stack_masks(self._masks[row] for row in range(self.num_envs))

    def step(self, actions: Any, rows: Sequence[int]) -> Iterator[tuple[int, EnvStep]]:
        """See :class:`EnvBatch`; only the environments of ``rows`` are stepped."""
        for row, action in zip(range(self.num_envs), iterate(self._action_space, actions), strict=True):
            if row in rows:
                observation, reward, terminated, truncated, info = self._envs[row].step(action)
                self._observations[row] = observation
                yield row, EnvStep(action, observation, reward, terminated, truncated, info)

    def render(self, row: int) -> Pixels:
        picture = render(self._envs[row], rendered_before=self._has_rendered)
        self._has_rendered = True
        return picture
