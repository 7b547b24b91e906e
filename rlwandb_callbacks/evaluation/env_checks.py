"""Checks of the evaluation environment before training, with warnings about what is unusual about it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.environments.action_masks import has_action_masks
from rlwandb_callbacks.environments.closing import closing
from rlwandb_callbacks.environments.factory import EnvFactory
from rlwandb_callbacks.environments.interface import check_step, checked_reset
from rlwandb_callbacks.environments.names import env_name
from rlwandb_callbacks.environments.normalization import can_apply, with_statistics
from rlwandb_callbacks.environments.rendering import render
from rlwandb_callbacks.environments.statistics import ObservationStatistics
from rlwandb_callbacks.environments.wrappers import has_sub_envs, observation_space_of, sub_envs
from rlwandb_callbacks.errors import EnvError, describe_error
from rlwandb_callbacks.evaluation.single_envs import batch, later_observations
from rlwandb_callbacks.evaluation.vector_env import reset_each

BATCH_SIZE = 3  # of the observations of a single environment
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
UNUSED_STATISTICS = (
    "{env} normalizes observations, but its running statistics do not fit the observations of evaluation.env, {space}. "
    "They are not applied: the policy sees other numbers than in training, and the returns are wrong. Give an "
    "evaluation environment with the observations that {env} normalizes, or with the normalization in it."
)
NO_PICTURES = (
    "evaluation.env {env} has {modes}, so no videos are made in this training ({reason}); "
    "video_logger=False turns this warning off."
)
IGNORED_SEEDS = (
    "evaluation.env {env} starts differently when it is reset twice with the same seeds: it ignores them, as EnvPool "
    "does. The seeds of its episodes are not known. Set evaluation.env to the id of one environment to have episodes "
    "with the seeds evaluation.seed, evaluation.seed + 1, …"
)
UNKNOWN_MASKS = (
    "evaluation.policy takes action masks, and evaluation.env has no method action_masks. The policy gets no masks and "
    "may take actions that the environment does not allow. Add that method to the evaluation environment, as the "
    "training environment has it (sb3-contrib's ActionMasker adds it), or give a policy that reads the masks from its "
    "observations."
)


class FirstObservations(NamedTuple):
    """Observations with which the policy is tried."""

    observations: Any  # a batch, as gymnasium.vector builds it
    batch_size: int
    ignores_seeds: bool  # the vector starts differently when it is reset twice with the same seeds


def first_observations(env: Any, seed: int, warn_once: Callable[..., None], *, has_masks: bool) -> FirstObservations:
    """Resets an environment or vector and takes a step, to see that it has the interface of Gymnasium.

    No step is taken in an environment with action masks, whose next state may allow no action, nor in a vector of
    subprocesses, which an error would end.

    Raises:
        EnvError: If it cannot be reset, or returns something else than environments of Gymnasium do.
    """
    ignores_seeds = False
    try:
        if isinstance(env, VectorEnv):
            first, ignores_seeds = _reset_vector(env, range(seed, seed + env.num_envs))
        else:
            first = copy.deepcopy(checked_reset(env, seed))  # some environments change it in place
    except EnvError:
        raise
    except Exception as error:
        raise EnvError(f"evaluation.env {env_name(env)} cannot be reset: {describe_error(error)}") from error
    if ignores_seeds:
        warn_once(IGNORED_SEEDS.format(env=env_name(env)), kind="seeds")
    env.action_space.seed(seed)
    can_step = not has_masks and (not isinstance(env, VectorEnv) or bool(sub_envs(env.unwrapped)))
    goes_on = can_step and check_step(env, partial(warn_once, kind="step"))
    if isinstance(env, VectorEnv):
        return FirstObservations(first, env.num_envs, ignores_seeds)
    later = later_observations(env, seed, BATCH_SIZE - 1) if goes_on else []
    observations = [first, *later, *[first] * (BATCH_SIZE - 1 - len(later))]
    return FirstObservations(batch(env.observation_space, observations), BATCH_SIZE, ignores_seeds=False)


def _reset_vector(envs: VectorEnv[Any, Any, Any], seeds: Sequence[int]) -> tuple[Any, bool]:
    """Resets a vector, and again if it has no single environments, to see whether it ignores seeds."""
    first = copy.deepcopy(reset_each(envs, seeds)[0])
    return first, not has_sub_envs(envs) and not data_equivalence(first, reset_each(envs, seeds)[0])


def normalized(env: Any, name: str, statistics: ObservationStatistics, warn_once: Callable[..., None]) -> Any:
    """Normalizes the observations of an environment by the statistics of another one, and warns of what is unusual."""
    if not can_apply(env, statistics):
        warn_once(UNUSED_STATISTICS.format(env=name, space=observation_space_of(env)), kind="normalization")
    result = with_statistics(env, statistics)
    if result is not env:
        warn_once(BORROWED_STATISTICS.format(env=name), kind="normalization")
    return result


def finds_masks(env: Any, make_env: EnvFactory, warn_once: Callable[..., None]) -> bool:
    """Returns whether an environment has action masks, and warns if it has none."""
    found = has_action_masks(env)
    if not found and isinstance(env, VectorEnv) and has_sub_envs(env):
        with closing(make_env()) as single:  # a vector of subprocesses ends if it is asked for an attribute it lacks
            found = has_action_masks(single)
    if not found:
        warn_once(UNKNOWN_MASKS, kind="masks")
    return found


def can_render(make_env: EnvFactory, modes: Sequence[str], seed: int, warn_once: Callable[..., None]) -> bool:
    """Tries to render an environment whose metadata lack ``rgb_array``, as they may be incomplete.

    Returns:
        False, with a warning, if it gives no picture.
    """
    if "rgb_array" in modes:
        return True
    try:
        with closing(make_env(render=True)) as env:
            checked_reset(env, seed)
            render(env)
    except Exception as error:  # noqa: BLE001  # environments may raise anything
        listed = ", ".join(map(repr, modes))
        text = f"the render modes {listed} and not 'rgb_array'" if listed else "no render modes in its metadata"
        reason = describe_error(error.__cause__ or error).splitlines()[0].rstrip(".")
        warn_once(NO_PICTURES.format(env=make_env.name, modes=text, reason=reason), kind="render")
        return False
    return True
