"""Plays a module's policy in its evaluation environment."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.environments.action_masks import has_mask, has_own_masks, mask_of, masks_in, stacked
from rlwandb_callbacks.environments.factory import (
    Env,
    EnvMaker,
    attribute_of,
    describe_actions,
    env_maker,
    frames_per_second,
    has_singles,
)
from rlwandb_callbacks.environments.normalization import (
    Statistics,
    is_hidden,
    normalizers,
    training_statistics,
    with_statistics,
)
from rlwandb_callbacks.environments.pettingzoo import TeamEnv
from rlwandb_callbacks.errors import EnvError, PolicyError
from rlwandb_callbacks.evaluation.episode_recorder import PlayedEpisode, RecordingOptions
from rlwandb_callbacks.evaluation.single_envs import play
from rlwandb_callbacks.evaluation.vector_env import play_in_vector, reset_each
from rlwandb_callbacks.policies.multi_agent import TeamOutputReader, for_each_agent
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.player import Player, policy_name, resolve_policy, tensor_meaning

MAX_ENVS = 8
MAX_OBSERVATION_BYTES = 64 * 2**20
PROBE_BATCH_SIZE = 3
UNKNOWN_STATISTICS = (
    "evaluation.env normalizes observations by running statistics, and no attribute of {module} is a training "
    "environment that does so. The statistics begin anew in each evaluation environment: the policy sees other numbers "
    "than in training, and returns are not those that it would reach. Keep the training environment as self.envs or "
    "self.env, or give an evaluation environment that brings the statistics of training along."
)
HIDDEN_STATISTICS = (
    "evaluation.env is a vector whose environments normalize by running statistics in processes of their own, which "
    "begin anew in each evaluation and cannot be set from here: returns are not those that the policy would reach. "
    "Give a SyncVectorEnv, a function that makes a single environment, or put the normalization around the vector."
)
BORROWED_STATISTICS = (
    "{env} normalizes observations and evaluation.env does not, so its running statistics are applied to the "
    "observations of the evaluation, frozen. evaluation.use_training_statistics=False leaves observations as they are."
)
UNKNOWN_MASKS = (
    "evaluation.policy takes action masks, and evaluation.env has no method action_masks, so it is given none and may "
    "take actions that the environment does not allow. Give the environment of the evaluation that method, as that of "
    "the training has it (sb3-contrib's ActionMasker adds it), or a policy that finds the masks in its observations."
)


def warn_plainly(message: str, *, kind: str) -> None:  # noqa: ARG001  # the caller's form
    """Warns; Python itself leaves out repetitions."""
    warnings.warn(f"rlwandb: {message}", UserWarning, stacklevel=2)


class Evaluator:
    """Makes environments and asks the policy.

    To be made and used inside :func:`rlwandb_callbacks.evaluation.preserved_state.undisturbed`.

    Args:
        cfg: With ``evaluation.env`` set.
        module: The LightningModule. Its policy, and the statistics by which it normalizes observations, are looked up
            anew for each evaluation.
        warn_once: Called with a message and a ``kind``, to warn once for each kind.

    Raises:
        EnvError: If the environment cannot be made or reset.
        PolicyError: If the policy is not found, fails, or answers what cannot be read.
    """

    def __init__(
        self, cfg: WandbRLConfig, module: torch.nn.Module, warn_once: Callable[..., None] = warn_plainly
    ) -> None:
        self._cfg, self._module, self._warn_once = cfg, module, warn_once
        self.make_env: EnvMaker = env_maker(cfg.evaluation.env, cfg.evaluation.env_kwargs, module)
        env = self.make_env.open()
        try:
            self._describe(env)
            env = self._normalized(env)
            self._probe(env)
        finally:
            env.close()

    def _describe(self, env: Env | VectorEnv[Any, Any, Any]) -> None:
        self._is_vector = isinstance(env, VectorEnv)
        self._action_space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
        self._observation_space = _observation_space(env)
        self._agents = env.agent_action_spaces if isinstance(env, TeamEnv) else {}
        self.actions: ActionSpec = describe_actions(env)
        self.fps: float = self._cfg.videos.fps or frames_per_second(env)
        self.can_replay = not isinstance(env, VectorEnv) or has_singles(env)

    def _probe(self, env: Env | VectorEnv[Any, Any, Any]) -> None:
        """Asks the policy once; a network whose parameters do not exist yet is left to come into being in training."""
        observations, batch_size = self._first_observations(env)
        player = self._player()
        self._asks_for_masks = player.takes_masks and self._has_masks(env)
        if any(torch.nn.parameter.is_lazy(parameter) for parameter in self._module.parameters()):
            return
        try:
            if self._asks_for_masks:
                player.allow(masks_in(env) if isinstance(env, VectorEnv) else stacked([mask_of(env)] * batch_size))
            player.rehearse(observations, side_by_side=1 < self._num_envs < self._cfg.evaluation.episodes)
        except PolicyError as error:
            raise PolicyError(
                f"evaluation.policy {policy_name(self._module, self._cfg.evaluation.policy)!r}: {error}"
            ) from error
        except Exception as error:
            raise PolicyError(
                f"evaluation.policy {self._cfg.evaluation.policy!r} failed on a batch of {batch_size} "
                f"observations of {_observation_space(env)}: {type(error).__name__}: {error}"
            ) from error

    def _has_masks(self, env: Env | VectorEnv[Any, Any, Any]) -> bool:
        """Tells whether environments say which actions they allow, and warns where they do not."""
        found = has_own_masks(env) if isinstance(env, VectorEnv) else has_mask(env)
        if not found and isinstance(env, VectorEnv) and has_singles(env):
            single = self.make_env()  # as a vector in other processes ends when it is asked for what it does not have
            found = has_mask(single)
            single.close()
        if not found:
            self._warn_once(UNKNOWN_MASKS, kind="masks")
        return found

    def _first_observations(self, env: Env | VectorEnv[Any, Any, Any]) -> tuple[Any, int]:
        seed = self._cfg.evaluation.seed
        try:
            if isinstance(env, VectorEnv):
                return reset_each(env, range(seed, seed + env.num_envs))[0], env.num_envs
            return _repeat(env.reset(seed=seed)[0], env, PROBE_BATCH_SIZE), PROBE_BATCH_SIZE
        except Exception as error:
            raise EnvError(f"evaluation.env {env} cannot be reset: {type(error).__name__}: {error}") from error

    def statistics(self) -> Statistics | None:
        """By which the training environment normalizes observations now; None where it does not, or nobody wants it."""
        found = self._found_statistics() if self._takes_statistics else None
        return None if found is None else found[1]

    def play(
        self,
        statistics: Statistics | None = None,
        *,
        film_bytes: int | None = None,
        fresh_envs: bool = False,
        keeps_observations: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> list[PlayedEpisode]:
        """Plays one rank's share of the configured episodes, each from its own seed.

        Args:
            statistics: By which observations are normalized, frozen.
            film_bytes: Record each episode in at most so many bytes, for environments that cannot be replayed.
            fresh_envs: Play each episode in an environment of its own, as some keep more than a reset brings back.
            keeps_observations: The episodes bring along what was observed, thinned to 64 MiB in all.
            rank: Plays episodes ``rank``, ``rank + ranks``, ``rank + 2 * ranks``, …
            ranks: Processes that share the episodes.
        """
        self.make_env = replace(self.make_env, statistics=statistics)
        cfg, player = self._cfg.evaluation, self._player()
        seeds = range(cfg.seed, cfg.seed + cfg.episodes)[rank::ranks]
        if not seeds:
            return []
        trace_bytes = MAX_OBSERVATION_BYTES // cfg.episodes if keeps_observations else 0
        if self._is_vector:
            return self._play_in_vector(player, seeds, film_bytes, trace_bytes)
        return play(
            self.make_env if film_bytes is None else partial(self.make_env, render=True),
            player,
            seeds=seeds,
            num_envs=min(self._num_envs, len(seeds)),
            max_steps=cfg.max_steps,
            film_bytes=film_bytes,
            info_keys=cfg.info_keys,
            fresh_envs=fresh_envs,
            trace_bytes=trace_bytes,
            on_begin=player.begin_episodes,
            on_masks=self._masks_for(player),
        )

    def _masks_for(self, player: Player) -> Callable[[Any], None] | None:
        return player.allow if self._asks_for_masks else None

    @property
    def reuses_envs(self) -> bool:
        """Whether an environment may play several episodes one after the other, and need not."""
        return not self._is_vector and self._num_envs < self._cfg.evaluation.episodes

    @property
    def _num_envs(self) -> int:
        return self._cfg.evaluation.num_envs or min(self._cfg.evaluation.episodes, MAX_ENVS)

    def _play_in_vector(
        self, player: Player, seeds: range, film_bytes: int | None, trace_bytes: int
    ) -> list[PlayedEpisode]:
        envs = cast(VectorEnv[Any, Any, Any], self.make_env.open(render=film_bytes is not None))
        cfg = self._cfg.evaluation
        options = RecordingOptions(cfg.max_steps, film_bytes, cfg.info_keys, trace_bytes)
        try:
            played = play_in_vector(
                envs,
                player,
                seeds=seeds,
                options=options,
                on_begin=player.begin_episodes,
                on_masks=self._masks_for(player),
            )
        finally:
            envs.close()
        self.can_replay = self.can_replay and all(each.episode.seed is not None for each in played)
        return played

    def _found_statistics(self) -> tuple[str, Statistics] | None:
        cfg = self._cfg.evaluation
        return training_statistics(self._module, attribute_of(self._module, cfg.env))

    def _normalized(self, env: Env | VectorEnv[Any, Any, Any]) -> Env | VectorEnv[Any, Any, Any]:
        """Makes the first environment normalize as those of the evaluations will, and says what is unusual in that."""
        self._takes_statistics = self._cfg.evaluation.use_training_statistics
        if is_hidden(env):
            self._takes_statistics = False
            self._warn_once(HIDDEN_STATISTICS, kind="normalization")
        if not self._takes_statistics:
            return env
        found, normalizes = self._found_statistics(), next(normalizers(env), None) is not None
        if found is None:
            if normalizes:
                self._warn_once(UNKNOWN_STATISTICS.format(module=type(self._module).__name__), kind="normalization")
            return env
        normalized = with_statistics(env, found[1])
        if normalized is not env:
            self._warn_once(BORROWED_STATISTICS.format(env=found[0]), kind="normalization")
        return normalized  # type: ignore[no-any-return]  # any of the two in, the same out

    def _player(self) -> Player:
        cfg = self._cfg.evaluation
        policy = resolve_policy(self._module, cfg.policy)
        if not self._agents:
            return Player(policy, self._module, self._reader(self._action_space), self._observation_space)
        reader: Any = TeamOutputReader({agent: self._reader(space) for agent, space in self._agents.items()})
        asked = for_each_agent(policy) if cfg.shared_policy else policy
        return Player(asked, self._module, reader, self._observation_space)

    def _reader(self, action_space: Any) -> OutputReader:
        meaning = tensor_meaning(self._cfg.evaluation.policy, self._module, self._cfg.action_logger)
        return OutputReader(action_space, self._cfg.action_logger, meaning, self._cfg.evaluation.deterministic)


def _observation_space(env: Any) -> Any:
    return env.single_observation_space if isinstance(env, VectorEnv) else env.observation_space


def _repeat(observation: Any, env: Env, times: int) -> Any:
    space = env.observation_space
    empty: Any = create_empty_array(space, n=times)
    return concatenate(space, [observation] * times, empty)
