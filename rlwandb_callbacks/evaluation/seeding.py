"""Finds out whether the seeds of its resets decide how the episodes of an environment begin."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.environments.interface import random_action
from rlwandb_callbacks.environments.wrappers import has_sub_envs
from rlwandb_callbacks.evaluation.env_failures import closing_env
from rlwandb_callbacks.evaluation.vector_env import reset_each

COMPARED_STEPS = 16  # games may show the same picture for some steps, whatever the seed
TOLERANCE = 1e-5  # relative and absolute, for rounding


def starts_differently(env: Any, first: Any, seed: int) -> bool:
    """Returns whether an environment starts from another observation than ``first``, that of another one like it.

    Observations are compared up to rounding. An error of the reset is no difference; evaluations report it.
    """
    with contextlib.suppress(Exception):
        return not _are_close(first, env.reset(seed=seed)[0])
    return False


def vector_ignores_seeds(
    envs: VectorEnv[Any, Any, Any],
    first: Any,
    seed: int,
    make_again: Callable[[], VectorEnv[Any, Any, Any]] | None,
    *,
    takes_steps: bool,
) -> bool:
    """Returns whether a vector starts differently when it is reset twice with the same seeds.

    The vector inside all wrappers is reset, as these may carry running statistics from one reset to the next. A vector
    without single environments also takes some random actions, the same after each reset. If its resets differ, a
    vector of single environments, whose reset may not restore everything, is compared with a new one. A vector that
    cannot be reset again is not compared.

    Args:
        envs: The vector.
        first: Its observations after its first reset.
        seed: Seed of the first environment in that reset.
        make_again: Makes a new vector like it; None if there is none.
        takes_steps: Whether random actions are valid.
    """
    base: Any = envs.unwrapped
    is_whole = not has_sub_envs(envs)
    steps = COMPARED_STEPS if takes_steps and is_whole else 0
    with contextlib.suppress(Exception):
        if not _are_close(_beginning(base, seed, steps), _beginning(base, seed, steps)):
            return is_whole or make_again is None or _differs_from_new(make_again, first, seed)
    return False


def _differs_from_new(make_again: Callable[[], VectorEnv[Any, Any, Any]], first: Any, seed: int) -> bool:
    with closing_env(make_again()) as new:
        return not _are_close([first], _beginning(new, seed, steps=0))


def _beginning(envs: Any, seed: int, steps: int) -> list[Any]:
    """Returns the first observations of a vector with the seeds ``seed``, ``seed + 1``, …, and of some steps."""
    observations = [copy.deepcopy(reset_each(envs, range(seed, seed + envs.num_envs))[0])]
    envs.action_space.seed(seed)
    with contextlib.suppress(Exception):  # reported by the evaluation
        observations.extend(copy.deepcopy(envs.step(random_action(envs))[0]) for _ in range(steps))
    return observations


def _are_close(first: Any, second: Any) -> bool:
    """Returns whether two observations are equal up to rounding; NaN equals NaN."""
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_are_close(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_are_close, first, second))
    one, other = np.asarray(first), np.asarray(second)
    if one.dtype.kind not in "fc":
        return np.array_equal(one, other)
    return one.shape == other.shape and np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
