"""A vector environment of the user as a batch: its environments are reset together and play one episode each.

The autoreset mode of the vector matters only for the last observation of an episode.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray

from rlwandb_callbacks.core.infos import reward_of
from rlwandb_callbacks.core.values import RawFrame
from rlwandb_callbacks.environments.action_masks import vector_action_masks
from rlwandb_callbacks.environments.closing import close, end_processes
from rlwandb_callbacks.environments.game_score import GameScore
from rlwandb_callbacks.environments.rendering import render_each
from rlwandb_callbacks.environments.shaping import Shaping
from rlwandb_callbacks.environments.vector_metadata import autoreset_mode
from rlwandb_callbacks.environments.wrappers import sub_envs
from rlwandb_callbacks.evaluation.env_failures import EnvFailure, close_env, env_call, failure_of
from rlwandb_callbacks.evaluation.episode_recorder import EnvStep

FINAL_OBSERVATIONS = ("final_obs", "final_observation")


class VectorEnvBatch:
    """Environments of a vector of any autoreset mode, which are reset together.

    An episode is reset with its seed if the vector takes a list of seeds; otherwise the vector is reset with the first
    seed and the episodes have none. They have none either if the vector takes seeds and ignores them, as EnvPool does.
    """

    resets_together = True

    def __init__(
        self,
        make_envs: Callable[[], VectorEnv[Any, Any, Any]],
        *,
        ignores_seeds: bool = False,
        shaping: Shaping | None = None,
    ) -> None:
        self._make_envs, self._ignores_seeds, self._shaping = make_envs, ignores_seeds, shaping
        self._process = os.getpid()
        self._envs = envs = make_envs()
        self._games = self._games_of(envs)
        self.num_envs, self.env_type = envs.num_envs, type(envs.unwrapped)
        self._has_failed = self._has_stepped = False
        self._is_waiting = False  # for what a call did not answer
        self._mode = autoreset_mode(envs)
        self._action_space = batch_space(envs.single_action_space, envs.num_envs)
        self._observations: Any = None
        self._pictures: list[RawFrame] | None = None

    def reset(self, seeds: Mapping[int, int]) -> Iterator[tuple[int, Any, int | None]]:
        """See :class:`EnvBatch`; all environments are reset, also those of other rows."""
        self._is_waiting = True
        try:
            with env_call():
                self._observations, takes_seeds = self._reset_all(self._seed_each(seeds))
        except Exception as error:  # noqa: BLE001  # environments may raise anything
            self._has_failed, self._is_waiting = True, False
            yield from ((row, EnvFailure(error), seed) for row, seed in seeds.items())
            return
        self._is_waiting = False
        is_seeded = takes_seeds and not self._ignores_seeds
        self._pictures = None
        observations = list(iterate(self._envs.observation_space, self._observations))
        for row, seed in seeds.items():
            yield row, observations[row], seed if is_seeded else None

    def _seed_each(self, seeds: Mapping[int, int]) -> list[int]:
        """Returns a seed for each row; those without an episode have further ones."""
        spare = itertools.count(max(seeds.values()) + 1)
        return [seeds[row] if row in seeds else next(spare) for row in range(self.num_envs)]

    def _reset_all(self, seeds: Sequence[int]) -> tuple[Any, bool]:
        if self._has_stepped and not self._has_failed and not self._goes_on_unseen:
            with contextlib.suppress(Exception):  # some environments refuse to reset before an episode has ended
                return self._start_games(seeds)
        if self._has_stepped or self._has_failed:
            close_env(self._envs)
            self._envs = self._make_envs()
            self._games = self._games_of(self._envs)
            self._has_failed = self._has_stepped = False
        return self._start_games(seeds)

    def _start_games(self, seeds: Sequence[int]) -> tuple[Any, bool]:
        games = [game for game in self._games if game is not None]
        for game in games:
            game.start()
        result = reset_each(self._envs, seeds)
        for game in games:
            game.started()
        return result

    def _games_of(self, envs: VectorEnv[Any, Any, Any]) -> list[GameScore | None]:
        """Follows the games of environments in this process, unless wrappers of the vector change their rewards."""
        if self._shaping is None or not self._shaping.is_of_single_env:
            return []
        return [GameScore.of(single) for single in sub_envs(envs.unwrapped)]

    @property
    def _goes_on_unseen(self) -> bool:
        """Whether a reset may go on with a game in another process."""
        return self._shaping is not None and self._shaping.goes_on and not self._games

    def score(self, row: int, last_step: EnvStep) -> float | None:
        """See :class:`EnvBatch`."""
        game = self._games[row] if self._games else None
        if game is not None:
            return game.score_at(is_cut=bool(last_step.truncated))
        if self._shaping is None or not self._shaping.has_recorder:
            return None
        return recorded_score(last_step.info)

    def play_on(self, row: int, last_step: EnvStep) -> bool:
        """See :class:`EnvBatch`; the next step resets the environment, which must go on with its game then."""
        shaping = self._shaping
        if shaping is None or not shaping.goes_on:
            return False
        game = self._games[row] if self._games else None
        if game is not None:
            return game.can_play_on
        return shaping.has_recorder and recorded_score(last_step.info) is None

    def close(self) -> None:
        """See :class:`EnvBatch`; processes that have not answered are ended, as closing would wait for them."""
        if not (self._is_waiting and end_processes(self._envs)):
            close(self._envs)

    def observations(self) -> Any:
        return self._observations

    def masks(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        """See :class:`EnvBatch`; all masks are current."""
        return vector_action_masks(self._envs)

    def step(self, actions: Any, rows: Sequence[int]) -> Iterator[tuple[int, EnvStep | EnvFailure]]:
        """See :class:`EnvBatch`; all environments are stepped, also those of other rows, and fail together."""
        self._has_stepped = self._is_waiting = True
        try:
            self._observations, rewards, terminated, truncated, infos = self._envs.step(actions)
        except BaseException as error:  # noqa: BLE001  # environments may raise anything
            failure = failure_of(error, self._process)
            self._has_failed, self._is_waiting = True, False
            yield from ((row, failure) for row in rows)
            return
        self._is_waiting = False
        self._pictures = None
        ended = np.logical_or(terminated, truncated)
        taken = iterate(self._action_space, actions)
        observed = iterate(self._envs.observation_space, self._observations)
        for row, (action, observation) in enumerate(zip(taken, observed, strict=True)):
            if row in rows:
                was_reset = ended[row] and self._mode is AutoresetMode.SAME_STEP
                state = observation, row_of_infos(infos, row)
                last, info = _final_state(*state) if was_reset else state
                yield row, EnvStep(action, last, rewards[row], terminated[row], truncated[row], info)
        if ended.any() and self._mode is AutoresetMode.DISABLED:  # after the last states have been rendered
            self._observations, _ = self._envs.reset(options={"reset_mask": ended})

    def render(self, row: int) -> RawFrame:
        """See :class:`EnvBatch`; a vector renders all environments at once."""
        if self._pictures is None:
            self._pictures = render_each(self._envs)
        return self._pictures[row]


def _final_state(observation: Any, info: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Returns the last observation and ``info`` of an episode whose environment has already been reset."""
    last = next((info[key] for key in FINAL_OBSERVATIONS if info.get(key) is not None), observation)
    final_info = info.get("final_info")
    return last, final_info if isinstance(final_info, Mapping) else info


def recorded_score(info: Mapping[str, Any]) -> float | None:
    """Returns the return that a ``RecordEpisodeStatistics`` or ``Monitor`` reports at the end of a game.

    Example:
        >>> recorded_score({"episode": {"r": 7.0, "l": 3}}), recorded_score({})
        (7.0, None)
    """
    recorded = info.get("episode")
    reported = recorded.get("r") if isinstance(recorded, Mapping) else None
    try:
        return None if reported is None else reward_of(reported)
    except TypeError:
        return None


def reset_each(envs: VectorEnv[Any, Any, Any], seeds: Sequence[int]) -> tuple[Any, bool]:
    """Resets all environments of a vector, each with its own seed.

    The second value says whether they took these seeds: some vectors take only one for all.
    """
    spare = envs.num_envs - len(seeds)
    all_seeds = [*seeds, *range(seeds[-1] + 1, seeds[-1] + 1 + spare)]
    for sequence in (all_seeds, np.array(all_seeds)):  # ale-py takes an array only
        with contextlib.suppress(Exception):  # vectors raise different errors for what they do not take
            return envs.reset(seed=sequence)[0], True  # type: ignore[arg-type]  # vectors of single environments take a list
    return envs.reset(seed=seeds[0])[0], False


def row_of_infos(infos: Any, row: int) -> dict[str, Any]:
    """Returns the ``info`` of one environment of a vector, without the masks ``_<key>``.

    Example:
        >>> row_of_infos({"x": np.array([1.0, 0.0]), "_x": np.array([True, False])}, 0) == {"x": 1.0}
        True
        >>> row_of_infos({"x": np.array([1.0, 0.0]), "_x": np.array([True, False])}, 1)
        {}
    """
    if isinstance(infos, list | tuple):
        return dict(infos[row])
    found = {}
    for key, value in infos.items():
        has_key: NDArray[np.bool_] | None = infos.get(f"_{key}")
        if str(key).startswith("_") or (has_key is not None and not has_key[row]):
            continue
        if isinstance(value, Mapping):
            found[key] = row_of_infos(value, row)
        elif isinstance(value, np.ndarray | list | tuple) and len(value) > row:
            found[key] = value[row]
    return found
