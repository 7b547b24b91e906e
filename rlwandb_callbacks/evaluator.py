"""Plays a module's policy in its evaluation environment."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from gymnasium.vector.utils import concatenate, create_empty_array

from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.actions import ActionSpec
from rlwandb_callbacks.environments import Env, EnvMaker, describe_actions, env_maker, frames_per_second
from rlwandb_callbacks.errors import EnvError, PolicyError
from rlwandb_callbacks.policy import Player, policy_name, resolve_policy, tensor_meaning
from rlwandb_callbacks.policy_answer import Reader
from rlwandb_callbacks.rollout import Played, play

MAX_ENVS = 8
PROBE_BATCH_SIZE = 3


class Evaluator:
    """Makes environments and asks the policy.

    To be made and used inside :func:`rlwandb_callbacks.isolation.undisturbed`.

    Args:
        cfg: With ``evaluation.env`` set.
        module: The LightningModule. Its policy is looked up anew for each evaluation, as modules replace their
            networks.

    Raises:
        EnvError: If the environment cannot be made or reset.
        PolicyError: If the policy is not found, fails, or answers what cannot be read.
    """

    def __init__(self, cfg: WandbRLConfig, module: torch.nn.Module) -> None:
        self._cfg = cfg
        self._module = module
        self.make_env: EnvMaker = env_maker(cfg.evaluation.env, cfg.evaluation.env_kwargs)
        env = self.make_env()
        try:
            self._action_space = env.action_space
            self.actions: ActionSpec = describe_actions(env)
            self.fps: float = cfg.videos.fps or frames_per_second(env)
            self._probe(env)
        finally:
            env.close()

    def _probe(self, env: Env) -> None:
        """Asks the policy once; a network whose parameters do not exist yet is left to come into being in training."""
        observations = _repeat(self._first_observation(env), env, PROBE_BATCH_SIZE)
        player = self._player()
        if any(torch.nn.parameter.is_lazy(parameter) for parameter in self._module.parameters()):
            return
        try:
            player.rehearse(observations, side_by_side=1 < self._num_envs < self._cfg.evaluation.episodes)
        except PolicyError as error:
            raise PolicyError(
                f"evaluation.policy {policy_name(self._module, self._cfg.evaluation.policy)!r}: {error}"
            ) from error
        except Exception as error:
            raise PolicyError(
                f"evaluation.policy {self._cfg.evaluation.policy!r} failed on a batch of {PROBE_BATCH_SIZE} "
                "observations of "
                f"{env.observation_space}: {type(error).__name__}: {error}"
            ) from error

    def _first_observation(self, env: Env) -> Any:
        try:
            return env.reset(seed=self._cfg.evaluation.seed)[0]
        except Exception as error:
            raise EnvError(f"evaluation.env {env} cannot be reset: {type(error).__name__}: {error}") from error

    def play(self, *, film_bytes: int | None = None, rank: int = 0, ranks: int = 1) -> list[Played]:
        """Plays one rank's share of the configured episodes, each from its own seed.

        Args:
            film_bytes: Record each episode in at most so many bytes, for environments that cannot be replayed.
            rank: Plays episodes ``rank``, ``rank + ranks``, ``rank + 2 * ranks``, …
            ranks: Processes that share the episodes.
        """
        cfg, player = self._cfg.evaluation, self._player()
        seeds = range(cfg.seed, cfg.seed + cfg.episodes)[rank::ranks]
        if not seeds:
            return []
        return play(
            self.make_env if film_bytes is None else partial(self.make_env, render=True),
            player,
            seeds=seeds,
            num_envs=min(self._num_envs, len(seeds)),
            max_steps=cfg.max_steps,
            film_bytes=film_bytes,
            keep_observations=self._cfg.vis_dataset and self._cfg.dataset.policy_on_data,
            on_begin=player.begin_episodes,
        )

    @property
    def _num_envs(self) -> int:
        cfg = self._cfg.evaluation
        return cfg.num_envs or min(cfg.episodes, MAX_ENVS)

    def _player(self) -> Player:
        policy = self._cfg.evaluation.policy
        meaning = tensor_meaning(policy, self._module, self._cfg.action_logger)
        reader = Reader(self._action_space, self._cfg.action_logger, meaning, self._cfg.evaluation.deterministic)
        return Player(resolve_policy(self._module, policy), self._module, reader)


def _repeat(observation: Any, env: Env, times: int) -> Any:
    space = env.observation_space
    empty: Any = create_empty_array(space, n=times)
    return concatenate(space, [observation] * times, empty)
