"""Plays complete evaluation episodes in a vector environment that a user has made.

Episodes are played in rounds: all environments are reset, each with a seed of its own, and play one episode each; those
that have ended wait for the others. Each episode that is begun counts, so that short episodes are not favoured, and
what the vector does with an environment that has ended matters only for the last observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.core.infos import reward_of
from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.environments.action_masks import masks_in
from rlwandb_callbacks.environments.rendering import render_each
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.evaluation.episode_recorder import EpisodeRecorder, PlayedEpisode, RecordingOptions

FINAL_OBSERVATIONS = ("final_obs", "final_observation")


def play_in_vector(
    envs: VectorEnv[Any, Any, Any],
    act: Callable[[Any], PolicyStep],
    *,
    seeds: Sequence[int],
    options: RecordingOptions,
    on_begin: Callable[[NDArray[np.bool_]], None] = lambda _: None,
    on_masks: Callable[[NDArray[np.bool_]], None] | None = None,
) -> list[PlayedEpisode]:
    """Plays one episode per seed.

    Args:
        envs: Of any autoreset mode. It is not closed.
        act: Acts in a batch of observations.
        seeds: One per episode. An episode is reset with its seed where the vector takes a list of seeds; else the
            vector is reset with the first seed of each round, and the episodes have none.
        options: What is taken down, and for how long; with ``film_bytes``, the vector must render; where that fails,
            the films of the episodes under way are lost.
        on_begin: Told at the start of each round that in all rows an episode begins, for policies with memory.
        on_masks: Told before each step which actions the environments allow; None where they are not to be asked.

    Returns:
        One entry per seed, in that order.
    """
    played: list[PlayedEpisode] = []

    def act_as_allowed(observations: Any) -> PolicyStep:
        if on_masks is not None:
            on_masks(masks_in(envs))
        return act(observations)

    for first in range(0, len(seeds), envs.num_envs):
        on_begin(np.ones(envs.num_envs, dtype=np.bool_))
        played += _Round(envs, act_as_allowed, options).play(seeds[first : first + envs.num_envs])
    return played


class _Round:
    """One episode in each environment of a vector."""

    def __init__(
        self, envs: VectorEnv[Any, Any, Any], act: Callable[[Any], PolicyStep], options: RecordingOptions
    ) -> None:
        self._envs, self._act = envs, act
        self._logs = [EpisodeRecorder(options) for _ in range(envs.num_envs)]
        self._mode = autoreset_mode(envs)
        self._has_drawn = False

    def play(self, seeds: Sequence[int]) -> list[PlayedEpisode]:
        batch = self._begin(seeds)
        done: dict[int, PlayedEpisode] = {}
        while len(done) < len(seeds):
            step = self._act(batch)
            batch, rewards, terminated, truncated, infos = self._envs.step(step.actions)
            ended = np.logical_or(terminated, truncated)
            for row, (observation, frame) in enumerate(self._states(batch)):
                log = self._logs[row]
                if not log.playing:
                    continue
                log.note(step, row)
                last, info = self._outcome(observation, row_of_infos(infos, row), has_ended=ended[row])
                reward, endings = reward_of(rewards[row]), (bool(terminated[row]), bool(truncated[row]))
                is_over = any(log.advance(step.actions[row], reward, *endings, info))
                log.see(last, frame, reward)
                if is_over:
                    done[row] = log.result()
                    log.begin(-1, None)
            if ended.any() and self._mode is AutoresetMode.DISABLED:
                batch, _ = self._envs.reset(options={"reset_mask": ended})
        return [done[row] for row in range(len(seeds))]

    def _begin(self, seeds: Sequence[int]) -> Any:
        batch, has_seeds = reset_each(self._envs, seeds)
        for row, seed in enumerate(seeds):
            self._logs[row].begin(row, seed if has_seeds else None)
        for log, (observation, frame) in zip(self._logs, self._states(batch), strict=True):
            if log.playing:
                log.see(observation, frame)
        return batch

    def _states(self, batch: Any) -> Iterator[tuple[Any, Pixels | None]]:
        return zip(iterate(self._envs.observation_space, batch), self._pictures(), strict=True)

    def _pictures(self) -> Sequence[Pixels | None]:
        nothing = [None] * self._envs.num_envs
        if not any(log.is_filmed for log in self._logs):
            return nothing
        try:
            pictures = render_each(self._envs, has_drawn=self._has_drawn)
        except RenderError as error:
            for log in self._logs:
                log.lose_film(error)
            return nothing
        self._has_drawn = True
        return pictures

    def _outcome(self, observation: Any, info: Mapping[str, Any], *, has_ended: bool) -> tuple[Any, Mapping[str, Any]]:
        if not has_ended or self._mode is not AutoresetMode.SAME_STEP:
            return observation, info
        last = next((info[key] for key in FINAL_OBSERVATIONS if info.get(key) is not None), observation)
        told = info.get("final_info")
        return last, told if isinstance(told, Mapping) else info


def autoreset_mode(envs: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """What a vector does with an environment that has ended; by default it is reset at the next step."""
    mode = envs.metadata.get("autoreset_mode", getattr(envs.unwrapped, "autoreset_mode", None))
    try:
        return AutoresetMode(mode)
    except ValueError:
        return AutoresetMode.NEXT_STEP


def reset_each(envs: VectorEnv[Any, Any, Any], seeds: Sequence[int]) -> tuple[Any, bool]:
    """Resets all environments of a vector, each with its own seed.

    Returns:
        Observations, and whether each has the seed that was meant for it: a vector may take but one seed for all.
    """
    spare = envs.num_envs - len(seeds)
    try:
        return envs.reset(seed=[*seeds, *range(seeds[-1] + 1, seeds[-1] + 1 + spare)])[0], True  # type: ignore[arg-type]  # vectors of single environments take a list
    except Exception:  # noqa: BLE001  # what a vector raises for a list of seeds is up to it
        return envs.reset(seed=seeds[0])[0], False


def row_of_infos(infos: Any, row: int) -> dict[str, Any]:
    """The ``info`` of one environment of a vector, without the marks that tell which environments gave a key.

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
        given: NDArray[np.bool_] | None = infos.get(f"_{key}")
        if str(key).startswith("_") or (given is not None and not given[row]):
            continue
        if isinstance(value, Mapping):
            found[key] = row_of_infos(value, row)
        elif isinstance(value, np.ndarray | list | tuple) and len(value) > row:
            found[key] = value[row]
    return found
