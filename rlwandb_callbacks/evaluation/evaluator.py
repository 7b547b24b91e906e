"""Plays the policy of a module in its evaluation environment."""

from __future__ import annotations

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import gymnasium as gym
import torch
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.config.root import OneEvaluationConfig
from rlwandb_callbacks.core.process_settings import preserved_process_settings
from rlwandb_callbacks.environments.action_masks import action_mask, stack_masks, vector_action_masks
from rlwandb_callbacks.environments.copies import EnvCopier
from rlwandb_callbacks.environments.factory import EnvFactory, env_factory, may_change, resolve_attribute
from rlwandb_callbacks.environments.normalization import Places, normalized_in_subprocesses, normalizers
from rlwandb_callbacks.environments.statistics import ObservationStatistics, training_statistics
from rlwandb_callbacks.environments.tasks import task_names
from rlwandb_callbacks.errors import EnvError, PolicyError, describe_error
from rlwandb_callbacks.evaluation.env_checks import (
    HIDDEN_STATISTICS,
    UNKNOWN_STATISTICS,
    can_render,
    describe_missing_tasks,
    finds_masks,
    first_observations,
    normalized,
    shaping_of,
)
from rlwandb_callbacks.evaluation.env_description import AnyEnv, EnvDescription
from rlwandb_callbacks.evaluation.env_failures import closing_env, env_call
from rlwandb_callbacks.evaluation.episode_recorder import PlayedEpisode, RecordingOptions
from rlwandb_callbacks.evaluation.random_states import preserved_random_states
from rlwandb_callbacks.evaluation.rollout import EnvBatch, play
from rlwandb_callbacks.evaluation.single_envs import SingleEnvBatch
from rlwandb_callbacks.evaluation.vector_env import VectorEnvBatch
from rlwandb_callbacks.policies.acting_methods import acting_advice
from rlwandb_callbacks.policies.adapters.stable_baselines import own_normalizer
from rlwandb_callbacks.policies.dry_run import PolicyTraits
from rlwandb_callbacks.policies.multi_agent import MultiAgentOutputReader, for_each_agent
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.output_record import OutputRecord
from rlwandb_callbacks.policies.resolve import policy_name, resolve_policy, tensor_meaning
from rlwandb_callbacks.policies.runner import ACTION_SCALE, PolicyRunner
from rlwandb_callbacks.policies.skipped_scaling import skipped_scaling

MAX_ENVS = 8
MAX_OBSERVATION_BYTES = 64 * 2**20
CLOSING = "Closing the environment"
OUTDATED = (
    "evaluation.env {env} cannot be copied as it is now, so evaluations play the copy that was made before, and "
    "training goes on: {error}"
)


def warn_plainly(message: str, *, kind: str) -> None:  # noqa: ARG001  # signature of ErrorPolicy.warn_once
    """Warns; Python itself suppresses repetitions."""
    warnings.warn(f"rlwandb: {message}", UserWarning, stacklevel=2)


class Evaluator:
    """Makes environments and calls the policy in them; needs settings with ``evaluation.env``.

    It must be made and used inside ``preserved_state``. Its attributes are set once, but for ``make_env``, see
    :meth:`follow`; the policy and the observation statistics are looked up in the module at each evaluation.
    ``warn_once`` is called with a message and ``kind=``, to warn once for each kind.

    Raises:
        EnvError: If the environment cannot be made or reset.
        PolicyError: If the policy is not found, fails, or returns an output that cannot be read.
    """

    def __init__(
        self, cfg: OneEvaluationConfig, module: torch.nn.Module, warn_once: Callable[..., None] = warn_plainly
    ) -> None:
        self._cfg, self._module, self._warn_once = cfg, module, warn_once
        self._ignores_seeds = self._has_no_second_env = False
        self.statistics_source: str | None = None  # path of the environment whose statistics were used last
        self._records: defaultdict[str, OutputRecord] = defaultdict(OutputRecord)  # by agent
        self._policy_warnings: set[str] = set()  # their kinds
        with env_call():
            self.make_env: EnvFactory = env_factory(cfg.evaluation.env, cfg.evaluation.env_kwargs, module)
        with env_call(), closing_env(self.make_env.open(), self._warn_of_close) as env:
            self.env = EnvDescription.of(env, cfg.evaluation.action_names or ())
            self.shaping = shaping_of(env, self.make_env)
            self.tasks = task_names(env)
            if (warning := describe_missing_tasks(self.tasks, cfg.evaluation.episodes)) is not None:
                warn_once(warning, kind="tasks")
            self._normalized_unseen = normalized_in_subprocesses(env)
            self._places = Places.of(env)
            self._uses_statistics = cfg.evaluation.use_training_statistics
            self._uses_statistics &= "observations" not in self._normalized_unseen
            used = self._normalized(env)
            self._traits: PolicyTraits | None = None
            self._sets_masks = self._policy().takes_masks and finds_masks(used, self.make_env, warn_once)
            self._traits = self._dry_run(used)
        self._warn_of_what_is_not_copied()

    def follow(self) -> None:
        """Makes ``make_env`` the environment that ``evaluation.env`` names now, with what training has set in it.

        If it cannot be copied, the earlier one is kept, with a warning. No environment is made, reset or stepped,
        unless the module holds another one than before.
        """
        cfg = self._cfg.evaluation
        if not may_change(cfg.env):
            return
        try:
            with env_call(), preserved_process_settings(), preserved_random_states():
                self.make_env = env_factory(cfg.env, cfg.env_kwargs, self._module, earlier=self.make_env)
        except Exception as error:  # noqa: BLE001  # copying may raise anything
            message = OUTDATED.format(env=self.make_env.name, error=describe_error(error))
            self._warn_once(message, kind="outdated environment")
        self._warn_of_what_is_not_copied()

    def _warn_of_what_is_not_copied(self) -> None:
        make = self.make_env.make
        if isinstance(make, EnvCopier) and make.origin is not None and make.origin.warning is not None:
            self._warn_once(make.origin.warning, kind="environment of training")

    def _warn_of_close(self, error: Exception) -> None:
        self._warn_once(f"{CLOSING} failed, and training goes on: {describe_error(error)}", kind=CLOSING)

    def _normalized(self, env: AnyEnv) -> AnyEnv:
        """Normalizes observations as every evaluation will."""
        if self._normalized_unseen:
            what = " and ".join(self._normalized_unseen)
            self._warn_once(HIDDEN_STATISTICS.format(what=what), kind="normalization")
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
        seen = first_observations(
            env,
            self._cfg.evaluation.seed,
            self._warn_once,
            has_masks=self._sets_masks,
            make_second=self._second_env_maker(),
        )
        observations, batch_size, self._ignores_seeds, self._has_no_second_env = seen
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
            found = resolve_policy(self._module, self._cfg.evaluation.policy)
            raise PolicyError(
                f"evaluation.policy {self._policy_name()!r} failed on a batch of {batch_size} observations of "
                f"{self.env.observation_space}: {describe_error(error)} {acting_advice(found, error)}".rstrip()
            ) from error
        self._warn_of_policy(traits.warnings)
        found = resolve_policy(self._module, self._cfg.evaluation.policy)
        unscaled = skipped_scaling(self._module, found, self.env.action_space)
        if unscaled is not None:
            self._warn_of_policy([(ACTION_SCALE, unscaled)])
        return traits

    def _warn_of_policy(self, warnings_by_kind: Iterable[tuple[str, str]]) -> None:
        for kind, message in warnings_by_kind:
            if kind not in self._policy_warnings:
                self._policy_warnings.add(kind)
                self._warn_once(f"evaluation.policy {self._policy_name()!r}: {message}", kind=kind)

    def _second_env_maker(self) -> Callable[[], AnyEnv] | None:
        """Returns what makes another environment as evaluations do, if they use several at the same time."""
        make_env = replace(self.make_env, statistics=self.statistics())
        if self.env.is_vector:
            return make_env.open
        return make_env if min(self._num_envs, self._cfg.evaluation.episodes) > 1 else None

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
        if self._has_no_second_env:
            return 1
        return self._cfg.evaluation.num_envs or min(self._cfg.evaluation.episodes, MAX_ENVS)

    def statistics(self) -> ObservationStatistics | None:
        """Returns the observation statistics of the training environment.

        None if it does not normalize observations, or if ``evaluation.use_training_statistics`` is off.
        """
        found = self._find_statistics() if self._uses_statistics else None
        return None if found is None else found[1]

    def _find_statistics(self) -> tuple[str, ObservationStatistics] | None:
        cfg = self._cfg.evaluation
        named = None
        with contextlib.suppress(EnvError):  # of an attribute that the module has no longer, see `follow`
            named = resolve_attribute(self._module, cfg.env)
        applied = None
        with contextlib.suppress(PolicyError):  # raised where the policy is called
            applied = own_normalizer(resolve_policy(self._module, cfg.policy))
        found = training_statistics(self._module, named, cfg.policy, self._places.accept, applied)
        if found is None and applied is not None and (neutral := self._places.neutral) is not None:
            found = "evaluation.policy", neutral
        is_used = found is not None and self._places.accept(found[1])
        self.statistics_source = found[0] if found is not None and is_used else None
        return found

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
        if make_env is None:
            self.follow()
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
            envs = VectorEnvBatch(make_envs, ignores_seeds=self._ignores_seeds, shaping=self.shaping)
        else:
            num_envs = min(self._num_envs, len(seeds))
            make_single = partial(make_env, render=renders)
            envs = SingleEnvBatch(make_single, num_envs, fresh_envs=fresh_envs, ignores_seeds=self._ignores_seeds)
        rows = [(seed - cfg.seed) % len(self.tasks) for seed in seeds] if self.tasks else None
        with closing_env(envs, self._warn_of_close):
            try:
                played = play(
                    envs,
                    policy,
                    seeds=seeds,
                    options=options,
                    on_begin=policy.mark_episode_starts,
                    on_masks=policy.set_action_masks if self._sets_masks else None,
                    on_failure=on_failure,
                    rows=rows,
                )
            finally:
                policy.restore()
                self._warn_of_policy(policy.warnings())
        return [self._with_task(each) for each in played] if self.tasks else played

    def _with_task(self, played: PlayedEpisode) -> PlayedEpisode:
        return replace(played, episode=replace(played.episode, task=self.tasks[played.episode.env_index]))

    def _policy(self) -> PolicyRunner:
        cfg, space = self._cfg.evaluation, self.env.observation_space
        traits = self._traits or PolicyTraits()
        policy = resolve_policy(self._module, cfg.policy)
        if not self.env.agent_action_spaces:
            return PolicyRunner(policy, self._module, self._reader(self.env.action_space), space, traits)
        readers = {agent: self._reader(actions, agent) for agent, actions in self.env.agent_action_spaces.items()}
        joint_policy = for_each_agent(policy, deterministic=cfg.deterministic) if cfg.shared_policy else policy
        reader: Any = MultiAgentOutputReader(readers)
        return PolicyRunner(joint_policy, self._module, reader, space, traits)

    def _reader(self, action_space: gym.Space[Any], agent: str = "") -> OutputReader:
        meaning = tensor_meaning(self._cfg.evaluation.policy, self._module, self._cfg.action_logger)
        return OutputReader(
            action_space,
            self._cfg.action_logger,
            meaning,
            self._cfg.evaluation.deterministic,
            record=self._records[agent],
        )
