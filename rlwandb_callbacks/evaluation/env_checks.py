"""Checks of the evaluation environment before training, with warnings about what is unusual about it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gymnasium.vector import VectorEnv

from rlwandb_callbacks.environments.action_masks import has_action_masks
from rlwandb_callbacks.environments.factory import EnvFactory
from rlwandb_callbacks.environments.interface import check_step, checked_reset
from rlwandb_callbacks.environments.names import env_name
from rlwandb_callbacks.environments.normalization import can_apply, normalizes, with_statistics
from rlwandb_callbacks.environments.rendering import render
from rlwandb_callbacks.environments.shaping import Shaping, find_shaping
from rlwandb_callbacks.environments.statistics import ObservationStatistics
from rlwandb_callbacks.environments.training_arguments import describe_training_arguments
from rlwandb_callbacks.environments.wrappers import has_sub_envs, observation_space_of, sub_envs
from rlwandb_callbacks.errors import EnvError, describe_error
from rlwandb_callbacks.evaluation.env_failures import closing_env
from rlwandb_callbacks.evaluation.seeding import starts_differently, vector_ignores_seeds
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
    "evaluation.env is a vector whose environments normalize {what} with running statistics in subprocesses. "
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
    "evaluation.env {env} starts differently when it is reset twice with the same seed, so episodes are logged without "
    "seeds, and none can be repeated. {remedy}"
)
IGNORED_BY_VECTOR = (
    "Pools such as those of EnvPool take a seed only when they are made. Set evaluation.env to the id of one "
    "environment to have episodes with the seeds evaluation.seed, evaluation.seed + 1, …"
)
IGNORED_BY_ENV = (
    "Let its reset(seed=…) call super().reset(seed=seed), which seeds self.np_random, and draw its numbers from that."
)
NO_SECOND_ENV = (
    "evaluation.env {env} cannot be made a second time while one is open: {reason} Evaluations play their episodes one "
    "after the other in a single environment; evaluation.num_envs=1 turns this warning off."
)
MISSING_TASKS = (
    "evaluation.env has environments of different tasks, and evaluation.episodes={episodes} leaves {missing} without "
    "an episode. Set it to {count}, or to a multiple of that, so that each of the {count} environments plays equally "
    "many episodes."
)
UNKNOWN_MASKS = (
    "evaluation.policy takes action masks, and evaluation.env has no method action_masks. The policy gets no masks and "
    "may take actions that the environment does not allow. Add that method to the evaluation environment, as the "
    "training environment has it (sb3-contrib's ActionMasker adds it), or give a policy that reads the masks from its "
    "observations."
)


class FirstObservations(NamedTuple):
    """Observations with which the policy is tried, and what was seen on the way."""

    observations: Any  # a batch, as gymnasium.vector builds it
    batch_size: int
    ignores_seeds: bool = False  # two resets with the same seeds start differently
    has_no_second: bool = False  # a second environment cannot be made as long as the first one is open


def first_observations(
    env: Any,
    seed: int,
    warn_once: Callable[..., None],
    *,
    has_masks: bool,
    make_second: Callable[[], Any] | None = None,
) -> FirstObservations:
    """Resets an environment or vector and takes a step, to see that it has the interface of Gymnasium.

    No step is taken in an environment with action masks, whose next state may allow no action. The environment is of
    no further use after an error in a step, which ends the subprocesses of a vector.

    Args:
        env: The environment, which is only closed afterwards.
        seed: Seed of the first episode.
        warn_once: Called with a message and ``kind=``.
        has_masks: Whether the policy is given action masks.
        make_second: Makes another environment like ``env``, if several are to be played at the same time.

    Raises:
        EnvError: If it cannot be reset, or returns something else than environments of Gymnasium do.
    """
    try:
        if isinstance(env, VectorEnv):
            first, batch_size = reset_each(env, range(seed, seed + env.num_envs))[0], env.num_envs
        else:
            first, batch_size = checked_reset(env, seed), BATCH_SIZE
    except EnvError:
        raise
    except Exception as error:
        raise EnvError(f"evaluation.env {env_name(env)} cannot be reset: {describe_error(error)}") from error
    seen = FirstObservations(copy.deepcopy(first), batch_size)  # some environments change it in place
    arguments = describe_training_arguments(env)
    if arguments is not None:
        warn_once(arguments, kind="arguments")
    env.action_space.seed(seed)
    failures: list[str] = []
    goes_on = not has_masks and check_step(env, failures.append)
    for failure in failures:
        warn_once(failure, kind="step")
    if isinstance(env, VectorEnv) and not failures:
        first = seen.observations
        ignores_seeds = vector_ignores_seeds(env, first, seed, make_second, takes_steps=not has_masks)
        seen = seen._replace(ignores_seeds=ignores_seeds)
    elif not isinstance(env, VectorEnv):
        later = later_observations(env, seed, BATCH_SIZE - 1) if goes_on else []
        observations = [seen.observations, *later, *[seen.observations] * (BATCH_SIZE - 1 - len(later))]
        if make_second is not None:
            seen = seen._replace(**_compared_with_second(env, seen.observations, seed, make_second, warn_once))
        seen = seen._replace(observations=batch(env.observation_space, observations))
    if seen.ignores_seeds:
        is_pool = isinstance(env, VectorEnv) and not has_sub_envs(env)
        remedy = IGNORED_BY_VECTOR if is_pool else IGNORED_BY_ENV
        warn_once(IGNORED_SEEDS.format(env=env_name(env), remedy=remedy), kind="seeds")
    return seen


def _compared_with_second(
    env: Any, first: Any, seed: int, make_second: Callable[[], Any], warn_once: Callable[..., None]
) -> dict[str, bool]:
    """Makes a second environment, and compares the observation after its reset with that of the first one."""
    try:
        second = make_second()
    except EnvError as error:
        reason = describe_error(error.__cause__ or error)
        warn_once(NO_SECOND_ENV.format(env=env_name(env), reason=reason), kind="second env")
        return {"has_no_second": True}
    with closing_env(second):
        return {"ignores_seeds": starts_differently(second, first, seed)}


def normalized(env: Any, name: str, statistics: ObservationStatistics, warn_once: Callable[..., None]) -> Any:
    """Normalizes the observations of an environment by the statistics of another one, and warns of what is unusual."""
    if not can_apply(env, statistics):
        warn_once(UNUSED_STATISTICS.format(env=name, space=observation_space_of(env)), kind="normalization")
    is_own = normalizes(env)
    result = with_statistics(env, statistics)
    if not is_own and normalizes(result):
        warn_once(BORROWED_STATISTICS.format(env=name), kind="normalization")
    return result


def finds_masks(env: Any, make_env: EnvFactory, warn_once: Callable[..., None]) -> bool:
    """Returns whether an environment has action masks, and warns if it has none."""
    found = has_action_masks(env)
    if not found and isinstance(env, VectorEnv) and has_sub_envs(env):
        with closing_env(
            make_env()
        ) as single:  # a vector of subprocesses ends if it is asked for an attribute it lacks
            found = has_action_masks(single)
    if not found:
        warn_once(UNKNOWN_MASKS, kind="masks")
    return found


def shaping_of(env: Any, make_env: EnvFactory) -> Shaping | None:
    """Returns the wrappers that change rewards or cut games; of a vector of subprocesses those of a further one."""
    if isinstance(env, VectorEnv) and has_sub_envs(env) and not sub_envs(env.unwrapped):
        with closing_env(make_env()) as single:
            return find_shaping(env) or find_shaping(single)
    return find_shaping(env)


def describe_missing_tasks(tasks: Sequence[str], episodes: int) -> str | None:
    """Returns a warning if some of the tasks of a vector have no episode.

    Example:
        >>> describe_missing_tasks(["reach", "push"], 2)
        >>> describe_missing_tasks(["reach", "push"], 1)[:72]
        'evaluation.env has environments of different tasks, and evaluation.episo'
    """
    missing = [task for task in dict.fromkeys(tasks) if task not in tasks[:episodes]]
    if not missing:
        return None
    return MISSING_TASKS.format(episodes=episodes, missing=", ".join(missing), count=len(tasks))


def can_render(make_env: EnvFactory, modes: Sequence[str], seed: int, warn_once: Callable[..., None]) -> bool:
    """Tries to render an environment whose metadata lack ``rgb_array``, as they may be incomplete.

    Returns:
        False, with a warning, if it gives no picture.
    """
    if "rgb_array" in modes:
        return True
    try:
        with closing_env(make_env(render=True)) as env:
            checked_reset(env, seed)
            render(env)
    except Exception as error:  # noqa: BLE001  # environments may raise anything
        listed = ", ".join(map(repr, modes))
        text = f"the render modes {listed} and not 'rgb_array'" if listed else "no render modes in its metadata"
        reason = describe_error(error.__cause__ or error).splitlines()[0].rstrip(".")
        warn_once(NO_PICTURES.format(env=make_env.name, modes=text, reason=reason), kind="render")
        return False
    return True
