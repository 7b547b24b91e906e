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
from rlwandb_callbacks.environments.action_masks import action_mask, has_action_masks, stack_masks, vector_action_masks
from rlwandb_callbacks.environments.description import describe_actions, frames_per_second
from rlwandb_callbacks.environments.factory import Env, EnvFactory, env_factory, resolve_attribute
from rlwandb_callbacks.environments.normalization import (
    Statistics,
    normalizers,
    normalizes_in_subprocesses,
    training_statistics,
    with_statistics,
)
from rlwandb_callbacks.environments.pettingzoo import MultiAgentEnv
from rlwandb_callbacks.environments.wrappers import has_sub_envs
from rlwandb_callbacks.errors import EnvError, PolicyError
from rlwandb_callbacks.evaluation.episode_recorder import PlayedEpisode, RecordingOptions
from rlwandb_callbacks.evaluation.rollout import EnvBatch, play
from rlwandb_callbacks.evaluation.single_envs import SingleEnvBatch, batch
from rlwandb_callbacks.evaluation.vector_env import VectorEnvBatch, reset_each
from rlwandb_callbacks.policies.multi_agent import MultiAgentOutputReader, for_each_agent
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.resolve import policy_name, resolve_policy, tensor_meaning
from rlwandb_callbacks.policies.runner import PolicyRunner

MAX_ENVS = 8
MAX_OBSERVATION_BYTES = 64 * 2**20
DRY_RUN_BATCH_SIZE = 3
AnyEnv: TypeAlias = Env | VectorEnv[Any, Any, Any]
UNKNOWN_STATISTICS = (
    "evaluation.env normalizes observations with running statistics, and no attribute of {module} is a training "
    "environment that does so. The statistics start from zero in each evaluation environment: the policy sees other "
    "numbers than in training, and the returns are wrong. Keep the training environment as self.envs or self.env, or "
    "give an evaluation environment that has the statistics of training."
)
HIDDEN_STATISTICS = (
    "evaluation.env is a vector whose environments normalize observations with running statistics in subprocesses. "
    "These start from zero in each evaluation and cannot be set from here, so the returns are wrong. Give a "
    "SyncVectorEnv, a function that makes a single environment, or put the normalization around the vector."
)
BORROWED_STATISTICS = (
    "{env} normalizes observations and evaluation.env does not, so its running statistics are applied, frozen, to the "
    "observations of the evaluation. evaluation.use_training_statistics=False leaves the observations as they are."
)
UNKNOWN_MASKS = (
    "evaluation.policy takes action masks, and evaluation.env has no method action_masks. The policy gets no masks and "
    "may take actions that the environment does not allow. Add that method to the evaluation environment, as the "
    "training environment has it (sb3-contrib's ActionMasker adds it), or give a policy that reads the masks from its "
    "observations."
)


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
    fps: float  # of its videos
    is_vector: bool
    can_replay: bool  # single environments can be made to replay its episodes

    @classmethod
    def of(cls, env: AnyEnv) -> EnvDescription:
        """Describes an environment or a vector environment."""
        return cls(
            actions=describe_actions(env),
            action_space=env.single_action_space if isinstance(env, VectorEnv) else env.action_space,
            observation_space=env.single_observation_space if isinstance(env, VectorEnv) else env.observation_space,
            agent_action_spaces=env.agent_action_spaces if isinstance(env, MultiAgentEnv) else {},
            fps=frames_per_second(env),
            is_vector=isinstance(env, VectorEnv),
            can_replay=not isinstance(env, VectorEnv) or has_sub_envs(env),
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
        self._cfg, self._module = cfg, module
        self.make_env: EnvFactory = env_factory(cfg.evaluation.env, cfg.evaluation.env_kwargs, module)
        env = self.make_env.open()
        try:
            self.env = EnvDescription.of(env)
            self._uses_statistics = cfg.evaluation.use_training_statistics and not normalizes_in_subprocesses(env)
            env = self._normalized(env, warn_once)
            self._sets_masks = self._policy().takes_masks and self._has_masks(env, warn_once)
            self._dry_run(env)
        finally:
            env.close()

    def _normalized(self, env: AnyEnv, warn_once: Callable[..., None]) -> AnyEnv:
        """Normalizes observations as every evaluation will, and warns of what is unusual about it."""
        if normalizes_in_subprocesses(env):
            warn_once(HIDDEN_STATISTICS, kind="normalization")
        if not self._uses_statistics:
            return env
        found = self._find_statistics()
        if found is None:
            if next(normalizers(env), None) is not None:
                warn_once(UNKNOWN_STATISTICS.format(module=type(self._module).__name__), kind="normalization")
            return env
        normalized: AnyEnv = with_statistics(env, found[1])
        if normalized is not env:
            warn_once(BORROWED_STATISTICS.format(env=found[0]), kind="normalization")
        return normalized

    def _has_masks(self, env: AnyEnv, warn_once: Callable[..., None]) -> bool:
        """Returns whether the environment has action masks, and warns if it has none."""
        found = has_action_masks(env)
        if not found and isinstance(env, VectorEnv) and has_sub_envs(env):
            single = self.make_env()  # a vector of subprocesses ends when it is asked for an attribute that it lacks
            found = has_action_masks(single)
            single.close()
        if not found:
            warn_once(UNKNOWN_MASKS, kind="masks")
        return found

    def _dry_run(self, env: AnyEnv) -> None:
        """Calls the policy once; a network with uninitialized lazy parameters is left to training."""
        observations, batch_size = self._first_observations(env)
        if any(torch.nn.parameter.is_lazy(parameter) for parameter in self._module.parameters()):
            return
        try:
            policy = self._policy()
            if self._sets_masks:
                policy.set_action_masks(
                    vector_action_masks(env)
                    if isinstance(env, VectorEnv)
                    else stack_masks([action_mask(env)] * batch_size)
                )
            policy.dry_run(observations, staggered=1 < self._num_envs < self._cfg.evaluation.episodes)
        except PolicyError as error:
            raise PolicyError(
                f"evaluation.policy {policy_name(self._module, self._cfg.evaluation.policy)!r}: {error}"
            ) from error
        except Exception as error:
            raise PolicyError(
                f"evaluation.policy {self._cfg.evaluation.policy!r} failed on a batch of {batch_size} "
                f"observations of {self.env.observation_space}: {type(error).__name__}: {error}"
            ) from error

    def _first_observations(self, env: AnyEnv) -> tuple[Any, int]:
        seed = self._cfg.evaluation.seed
        try:
            if isinstance(env, VectorEnv):
                return reset_each(env, range(seed, seed + env.num_envs))[0], env.num_envs
            observations = [env.reset(seed=seed)[0]] * DRY_RUN_BATCH_SIZE
            return batch(env.observation_space, observations), DRY_RUN_BATCH_SIZE
        except Exception as error:
            raise EnvError(f"evaluation.env {env} cannot be reset: {type(error).__name__}: {error}") from error

    @property
    def reuses_envs(self) -> bool:
        """Whether single environments play several episodes one after the other."""
        return not self.env.is_vector and self._num_envs < self._cfg.evaluation.episodes

    @property
    def _num_envs(self) -> int:
        return self._cfg.evaluation.num_envs or min(self._cfg.evaluation.episodes, MAX_ENVS)

    def statistics(self) -> Statistics | None:
        """Returns the observation statistics of the training environment.

        None if it does not normalize observations, or if ``evaluation.use_training_statistics`` is off.
        """
        found = self._find_statistics() if self._uses_statistics else None
        return None if found is None else found[1]

    def _find_statistics(self) -> tuple[str, Statistics] | None:
        return training_statistics(self._module, resolve_attribute(self._module, self._cfg.evaluation.env))

    def play(
        self,
        seeds: Sequence[int] | None = None,
        make_env: EnvFactory | None = None,
        *,
        frames_max_bytes: int | None = None,
        fresh_envs: bool = False,
        keeps_observations: bool = False,
    ) -> list[PlayedEpisode]:
        """Plays one episode for each seed.

        Args:
            seeds: By default those of all episodes of the settings.
            make_env: Makes environments with this evaluation's observation statistics; by default ``self.make_env``.
            frames_max_bytes: Memory for the frames of an episode, recorded while playing; None to record none.
            fresh_envs: Play each episode in a new environment, as the reset of some does not restore everything.
            keeps_observations: Keep the observations of the episodes, thinned to 64 MiB for all episodes together.
        """
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
            envs = VectorEnvBatch(cast(VectorEnv[Any, Any, Any], make_env.open(render=renders)))
        else:
            num_envs = min(self._num_envs, len(seeds))
            envs = SingleEnvBatch(partial(make_env, render=renders), num_envs, fresh_envs=fresh_envs)
        try:
            return play(
                envs,
                policy,
                seeds=seeds,
                options=options,
                on_begin=policy.mark_episode_starts,
                on_masks=policy.set_action_masks if self._sets_masks else None,
            )
        finally:
            envs.close()

    def _policy(self) -> PolicyRunner:
        cfg, space = self._cfg.evaluation, self.env.observation_space
        policy = resolve_policy(self._module, cfg.policy)
        if not self.env.agent_action_spaces:
            return PolicyRunner(policy, self._module, self._reader(self.env.action_space), space)
        readers = {agent: self._reader(actions) for agent, actions in self.env.agent_action_spaces.items()}
        joint_policy = for_each_agent(policy) if cfg.shared_policy else policy
        reader: Any = MultiAgentOutputReader(readers)
        return PolicyRunner(joint_policy, self._module, reader, space)

    def _reader(self, action_space: gym.Space[Any]) -> OutputReader:
        meaning = tensor_meaning(self._cfg.evaluation.policy, self._module, self._cfg.action_logger)
        return OutputReader(action_space, self._cfg.action_logger, meaning, self._cfg.evaluation.deterministic)
