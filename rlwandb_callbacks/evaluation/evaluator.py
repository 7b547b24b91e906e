"""Plays the policy of a module in its evaluation environment."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.config.root import OneEvaluationConfig
from rlwandb_callbacks.core.process_settings import preserved_process_settings
from rlwandb_callbacks.environments.action_masks import action_mask, stack_masks, vector_action_masks
from rlwandb_callbacks.environments.copies import EnvCopier
from rlwandb_callbacks.environments.factory import EnvFactory, env_factory, may_change
from rlwandb_callbacks.environments.statistics import ObservationStatistics
from rlwandb_callbacks.environments.tasks import task_names
from rlwandb_callbacks.errors import EnvError, PolicyError, describe_error
from rlwandb_callbacks.evaluation.env_checks import (
    can_render,
    describe_missing_tasks,
    finds_masks,
    first_observations,
    shaping_of,
)
from rlwandb_callbacks.evaluation.env_description import AnyEnv, EnvDescription
from rlwandb_callbacks.evaluation.env_failures import closing_env, env_call
from rlwandb_callbacks.evaluation.episode_recorder import PlayedEpisode, RecordingOptions
from rlwandb_callbacks.evaluation.followed_statistics import FollowedStatistics
from rlwandb_callbacks.evaluation.policy_runners import PolicyRunners
from rlwandb_callbacks.evaluation.random_states import preserved_random_states
from rlwandb_callbacks.evaluation.rollout import EnvBatch, play
from rlwandb_callbacks.evaluation.single_envs import SingleEnvBatch
from rlwandb_callbacks.evaluation.stopping import StoppedError, Stopping
from rlwandb_callbacks.evaluation.vector_env import VectorEnvBatch
from rlwandb_callbacks.policies.acting_methods import acting_advice
from rlwandb_callbacks.policies.dry_run import PolicyTraits
from rlwandb_callbacks.policies.resolve import policy_name, resolve_policy
from rlwandb_callbacks.policies.runner import ACTION_SCALE, PolicyRunner
from rlwandb_callbacks.policies.skipped_scaling import skipped_scaling

MAX_ENVS = 8
MAX_OBSERVATION_BYTES = 64 * 2**20
CLOSING = "Closing the environment"
PREPARING = "Making the environment and calling the policy"
HANGING = "hanging environment"
PREPARATION_SECONDS = 60.0  # at least, as the first call may compile networks and load assets
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
        self._runners = PolicyRunners(cfg, module)
        self._policy_warnings: set[str] = set()  # their kinds
        with self._time_limit(PREPARING):
            self._prepare()
        self._warn_of_what_is_not_copied()

    def stopping(self, is_interrupted: Callable[[], bool] | None = None) -> Stopping:
        """Starts the clock of one evaluation, which must also stop when ``is_interrupted`` returns True."""
        return Stopping(self._cfg.evaluation.max_seconds, is_interrupted, partial(self._warn_once, kind=HANGING))

    @contextlib.contextmanager
    def _time_limit(self, what: str) -> Iterator[None]:
        """Raises an EnvError if the block, which comes before the first step, reaches the time limit."""
        max_seconds = self._cfg.evaluation.max_seconds
        at_least = None if max_seconds is None else max(max_seconds, PREPARATION_SECONDS)
        try:
            with Stopping(at_least, warn=partial(self._warn_once, kind=HANGING)).interruptible(lambda: what):
                yield
        except StoppedError as error:
            raise EnvError(f"evaluation.env: {error}") from error

    def _prepare(self) -> None:
        cfg, warn_once = self._cfg, self._warn_once
        with env_call():
            self.make_env: EnvFactory = env_factory(cfg.evaluation.env, cfg.evaluation.env_kwargs, self._module)
        with env_call(), closing_env(self.make_env.open(), self._warn_of_close) as env:
            self.env = EnvDescription.of(env, cfg.evaluation.action_names or ())
            self.shaping = shaping_of(env, self.make_env)
            self.tasks = task_names(env)
            if (warning := describe_missing_tasks(self.tasks, cfg.evaluation.episodes)) is not None:
                warn_once(warning, kind="tasks")
            self._statistics = FollowedStatistics(cfg.evaluation, self._module, env, warn_once)
            used = self._statistics.normalized(env)
            self._traits: PolicyTraits | None = None
            self._sets_masks = self._policy().takes_masks and finds_masks(used, self.make_env, warn_once)
            self._traits = self._dry_run(used)

    def follow(self) -> None:
        """Makes ``make_env`` the environment that ``evaluation.env`` names now, with what training has set in it.

        If it cannot be copied, the earlier one is kept, with a warning. No environment is made, reset or stepped,
        unless the module holds another one than before.
        """
        cfg = self._cfg.evaluation
        if not may_change(cfg.env):
            return
        try:
            with (
                env_call(),
                preserved_process_settings(),
                preserved_random_states(),
                self.stopping().interruptible(lambda: "Copying the environment"),
            ):
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
        if not self.env.can_replay:
            return True
        with self._time_limit("Rendering the environment"):
            return can_render(self.make_env, self.env.render_modes, seed, self._warn_once)

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
        return self._statistics.current()

    @property
    def statistics_source(self) -> str | None:
        """Path of the environment whose statistics were used last."""
        return self._statistics.source

    def play(
        self,
        seeds: Sequence[int] | None = None,
        make_env: EnvFactory | None = None,
        *,
        frames_max_bytes: int | None = None,
        fresh_envs: bool = False,
        keeps_observations: bool = False,
        on_failure: Callable[[Exception], object] | None = None,
        stopping: Stopping | None = None,
    ) -> list[PlayedEpisode]:
        """Plays one episode for each seed.

        Args:
            seeds: By default those of all episodes of the settings.
            make_env: Makes environments with this evaluation's observation statistics; by default ``self.make_env``.
            frames_max_bytes: Memory for the frames of an episode, recorded while playing; None to record none.
            fresh_envs: Play each episode in a new environment, as the reset of some does not restore everything.
            keeps_observations: Keep the observations of the episodes, thinned to 64 MiB for all episodes together.
            on_failure: Called with the error of each episode that could not be played; by default the error is raised.
            stopping: Says when to stop; by default after ``evaluation.max_seconds`` from now on. Episodes that have
                been played by then are returned.
        """
        stopping = stopping or self.stopping()
        if self._traits is None:
            with (
                stopping.interruptible(lambda: PREPARING),
                closing_env(self.make_env.open(), self._warn_of_close) as env,
            ):
                self._traits = self._dry_run(self._statistics.normalized(env))
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
        with stopping.interruptible(lambda: "Making the environment"):
            envs = self._make_batch(make_env, len(seeds), renders=renders, fresh_envs=fresh_envs)
        rows = [(seed - cfg.seed) % len(self.tasks) for seed in seeds] if self.tasks else None
        with closing_env(envs, self._warn_of_close, stopping):
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
                    stopping=stopping,
                )
            finally:
                policy.restore()
                self._warn_of_policy(policy.warnings())
        return [self._with_task(each) for each in played] if self.tasks else played

    def _make_batch(self, make_env: EnvFactory, num_episodes: int, *, renders: bool, fresh_envs: bool) -> EnvBatch:
        if self.env.is_vector:
            make_envs = cast(Callable[[], VectorEnv[Any, Any, Any]], partial(make_env.open, render=renders))
            return VectorEnvBatch(make_envs, ignores_seeds=self._ignores_seeds, shaping=self.shaping)
        num_envs = min(self._num_envs, num_episodes)
        make_single = partial(make_env, render=renders)
        return SingleEnvBatch(make_single, num_envs, fresh_envs=fresh_envs, ignores_seeds=self._ignores_seeds)

    def _with_task(self, played: PlayedEpisode) -> PlayedEpisode:
        return replace(played, episode=replace(played.episode, task=self.tasks[played.episode.env_index]))

    def _policy(self) -> PolicyRunner:
        return self._runners.runner(self.env, self._traits or PolicyTraits())
