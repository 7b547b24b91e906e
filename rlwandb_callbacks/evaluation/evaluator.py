"""Plays the policy of a module in its evaluation environment."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

import gymnasium as gym
import torch
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.environments.action_masks import action_mask, stack_masks, vector_action_masks
from rlwandb_callbacks.environments.description import describe_actions, frames_per_second, render_modes
from rlwandb_callbacks.environments.factory import Env, EnvFactory, env_factory, resolve_attribute
from rlwandb_callbacks.environments.normalization import normalizers, normalizes_in_subprocesses
from rlwandb_callbacks.environments.pettingzoo import MultiAgentEnv
from rlwandb_callbacks.environments.statistics import ObservationStatistics, training_statistics
from rlwandb_callbacks.environments.step_limit import step_limits
from rlwandb_callbacks.environments.wrappers import has_sub_envs, observation_space_of
from rlwandb_callbacks.errors import PolicyError, describe_error
from rlwandb_callbacks.evaluation.env_checks import (
    HIDDEN_STATISTICS,
    UNKNOWN_STATISTICS,
    can_render,
    finds_masks,
    first_observations,
    normalized,
)
from rlwandb_callbacks.evaluation.env_failures import closing_env, env_call
from rlwandb_callbacks.evaluation.episode_recorder import PlayedEpisode, RecordingOptions
from rlwandb_callbacks.evaluation.rollout import EnvBatch, play
from rlwandb_callbacks.evaluation.single_envs import SingleEnvBatch
from rlwandb_callbacks.evaluation.vector_env import VectorEnvBatch
from rlwandb_callbacks.policies.dry_run import PolicyTraits
from rlwandb_callbacks.policies.multi_agent import MultiAgentOutputReader, for_each_agent
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.resolve import policy_name, resolve_policy, tensor_meaning
from rlwandb_callbacks.policies.runner import PolicyRunner

MAX_ENVS = 8
MAX_OBSERVATION_BYTES = 64 * 2**20
CLOSING = "Closing the environment"
AnyEnv: TypeAlias = Env | VectorEnv[Any, Any, Any]


def warn_plainly(message: str, *, kind: str) -> None:  # noqa: ARG001  # signature of ErrorPolicy.warn_once
    """Warns; Python itself suppresses repetitions."""
    warnings.warn(f"rlwandb: {message}", UserWarning, stacklevel=2)


@dataclass(frozen=True)
class EnvDescription:
    """Properties of the evaluation environment that hold for a whole training; spaces are those of one environment."""

    actions: ActionSpec
    action_space: gym.Space[Any]
    observation_space: gym.Space[Any]
    agent_action_spaces: Mapping[str, gym.Space[Any]]  # by agent; empty unless there are several
    render_modes: tuple[str, ...]
    fps: float  # of its videos
    is_vector: bool
    can_replay: bool  # single environments can be made to replay its episodes
    step_limits: tuple[int, ...]  # after which it may cut an episode, see environments.step_limit

    @classmethod
    def of(cls, env: AnyEnv, action_names: Sequence[str] = ()) -> EnvDescription:
        """Describes an environment or a vector environment, with names of its actions that replace its own."""
        return cls(
            actions=describe_actions(env, action_names),
            action_space=env.single_action_space if isinstance(env, VectorEnv) else env.action_space,
            observation_space=observation_space_of(env),
            agent_action_spaces=env.agent_action_spaces if isinstance(env, MultiAgentEnv) else {},
            render_modes=render_modes(env),
            fps=frames_per_second(env),
            is_vector=isinstance(env, VectorEnv),
            can_replay=not isinstance(env, VectorEnv) or has_sub_envs(env),
            step_limits=step_limits(env),
        )


class Evaluator:
    """Makes environments and calls the policy in them; needs settings with ``evaluation.env``.

    It must be made and used inside ``preserved_state``. Its attributes are set once; the policy and the observation
    statistics are looked up in the module at each evaluation. ``warn_once`` is called with a message and ``kind=``, to
    warn once for each kind.

    Raises:
        EnvError: If the environment cannot be made or reset.
        PolicyError: If the policy is not found, fails, or returns an output that cannot be read.
    """

    def __init__(
        self, cfg: WandbRLConfig, module: torch.nn.Module, warn_once: Callable[..., None] = warn_plainly
    ) -> None:
        self._cfg, self._module, self._warn_once = cfg, module, warn_once
        self._ignores_seeds = False
        self.make_env: EnvFactory = env_factory(cfg.evaluation.env, cfg.evaluation.env_kwargs, module)
        with env_call(), closing_env(self.make_env.open(), self._warn_of_close) as env:
            self.env = EnvDescription.of(env, cfg.evaluation.action_names or ())
            self._hides_statistics = normalizes_in_subprocesses(env)
            self._uses_statistics = cfg.evaluation.use_training_statistics and not self._hides_statistics
            used = self._normalized(env)
            self._traits: PolicyTraits | None = None
            self._sets_masks = self._policy().takes_masks and finds_masks(used, self.make_env, warn_once)
            self._traits = self._dry_run(used)

    def _warn_of_close(self, error: Exception) -> None:
        self._warn_once(f"{CLOSING} failed, and training goes on: {describe_error(error)}", kind=CLOSING)

    def _normalized(self, env: AnyEnv) -> AnyEnv:
        """Normalizes observations as every evaluation will."""
        if self._hides_statistics:
            self._warn_once(HIDDEN_STATISTICS, kind="normalization")
        found = self._find_statistics() if self._uses_statistics else None
        if found is not None:
            result: AnyEnv = normalized(env, *found, self._warn_once)
            return result
        if self._uses_statistics and next(normalizers(env), None) is not None:
            module = type(self._module).__name__
            self._warn_once(UNKNOWN_STATISTICS.format(module=module), kind="normalization")
        return env

    def _policy_name(self) -> str:
        return policy_name(self._module, self._cfg.evaluation.policy)

    def _dry_run(self, env: AnyEnv) -> PolicyTraits | None:
        """Asks the policy how it must be called, and warns of what is unusual about it.

        Returns None for a network with uninitialized lazy parameters, which training is to initialize.
        """
        first = first_observations(env, self._cfg.evaluation.seed, self._warn_once, has_masks=self._sets_masks)
        observations, batch_size, self._ignores_seeds = first
        if any(torch.nn.parameter.is_lazy(parameter) for parameter in self._module.parameters()):
            return None
        num_rows = batch_size if self.env.is_vector else min(self._num_envs, self._cfg.evaluation.episodes)
        try:
            policy = self._policy()
            if self._sets_masks:
                policy.set_action_masks(
                    vector_action_masks(env)
                    if isinstance(env, VectorEnv)
                    else stack_masks([action_mask(env)] * batch_size)
                )
            traits = policy.dry_run(observations, num_rows=num_rows, staggered=self.reuses_envs)
        except PolicyError as error:
            raise PolicyError(f"evaluation.policy {self._policy_name()!r}: {error}") from error
        except Exception as error:
            raise PolicyError(
                f"evaluation.policy {self._cfg.evaluation.policy!r} failed on a batch of {batch_size} "
                f"observations of {self.env.observation_space}: {type(error).__name__}: {error}"
            ) from error
        for kind, message in traits.warnings:
            self._warn_once(f"evaluation.policy {self._policy_name()!r}: {message}", kind=kind)
        return traits

    def can_render(self) -> bool:
        """Returns whether the environment may render; if its metadata do not say so it is tried, with a warning."""
        seed = self._cfg.evaluation.seed
        return not self.env.can_replay or can_render(self.make_env, self.env.render_modes, seed, self._warn_once)

    @property
    def reuses_envs(self) -> bool:
        """Whether single environments play several episodes one after the other."""
        return not self.env.is_vector and self._num_envs < self._cfg.evaluation.episodes

    @property
    def _num_envs(self) -> int:
        return self._cfg.evaluation.num_envs or min(self._cfg.evaluation.episodes, MAX_ENVS)

    def statistics(self) -> ObservationStatistics | None:
        """Returns the observation statistics of the training environment.

        None if it does not normalize observations, or if ``evaluation.use_training_statistics`` is off.
        """
        found = self._find_statistics() if self._uses_statistics else None
        return None if found is None else found[1]

    def _find_statistics(self) -> tuple[str, ObservationStatistics] | None:
        cfg = self._cfg.evaluation
        return training_statistics(self._module, resolve_attribute(self._module, cfg.env), cfg.policy)

    def play(
        self,
        seeds: Sequence[int] | None = None,
        make_env: EnvFactory | None = None,
        *,
        frames_max_bytes: int | None = None,
        fresh_envs: bool = False,
        keeps_observations: bool = False,
        on_failure: Callable[[Exception], object] | None = None,
    ) -> list[PlayedEpisode]:
        """Plays one episode for each seed.

        Args:
            seeds: By default those of all episodes of the settings.
            make_env: Makes environments with this evaluation's observation statistics; by default ``self.make_env``.
            frames_max_bytes: Memory for the frames of an episode, recorded while playing; None to record none.
            fresh_envs: Play each episode in a new environment, as the reset of some does not restore everything.
            keeps_observations: Keep the observations of the episodes, thinned to 64 MiB for all episodes together.
            on_failure: Called with the error of each episode that could not be played; by default the error is raised.
        """
        if self._traits is None:
            with closing_env(self.make_env.open(), self._warn_of_close) as env:
                self._traits = self._dry_run(self._normalized(env))
        cfg, policy = self._cfg.evaluation, self._policy()
        seeds = range(cfg.seed, cfg.seed + cfg.episodes) if seeds is None else seeds
        make_env = make_env or self.make_env
        if not seeds:
            return []
        observations_max_bytes = MAX_OBSERVATION_BYTES // cfg.episodes if keeps_observations else 0
        options = RecordingOptions(cfg.max_steps, frames_max_bytes, cfg.info_keys, observations_max_bytes)
        renders = frames_max_bytes is not None
        envs: EnvBatch
        if self.env.is_vector:
            make_envs = cast(Callable[[], VectorEnv[Any, Any, Any]], partial(make_env.open, render=renders))
            envs = VectorEnvBatch(make_envs, ignores_seeds=self._ignores_seeds)
        else:
            num_envs = min(self._num_envs, len(seeds))
            envs = SingleEnvBatch(partial(make_env, render=renders), num_envs, fresh_envs=fresh_envs)
        with closing_env(envs, self._warn_of_close):
            try:
                return play(
                    envs,
                    policy,
                    seeds=seeds,
                    options=options,
                    on_begin=policy.mark_episode_starts,
                    on_masks=policy.set_action_masks if self._sets_masks else None,
                    on_failure=on_failure,
                )
            finally:
                policy.restore()

    def _policy(self) -> PolicyRunner:
        cfg, space = self._cfg.evaluation, self.env.observation_space
        traits = self._traits or PolicyTraits()
        policy = resolve_policy(self._module, cfg.policy)
        if not self.env.agent_action_spaces:
            return PolicyRunner(policy, self._module, self._reader(self.env.action_space), space, traits)
        readers = {agent: self._reader(actions) for agent, actions in self.env.agent_action_spaces.items()}
        joint_policy = for_each_agent(policy) if cfg.shared_policy else policy
        reader: Any = MultiAgentOutputReader(readers)
        return PolicyRunner(joint_policy, self._module, reader, space, traits)

    def _reader(self, action_space: gym.Space[Any]) -> OutputReader:
        meaning = tensor_meaning(self._cfg.evaluation.policy, self._module, self._cfg.action_logger)
        return OutputReader(action_space, self._cfg.action_logger, meaning, self._cfg.evaluation.deterministic)
