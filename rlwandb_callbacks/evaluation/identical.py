"""Notices evaluation episodes that are repetitions of each other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.infos import reward_of
from rlwandb_callbacks.environments.factory import EnvFactory
from rlwandb_callbacks.evaluation.env_failures import closing_env, env_call
from rlwandb_callbacks.evaluation.fingerprint import fingerprint

COMPARED_STEPS = 200

ALL = "All {count} evaluation episodes are identical"
SOME = "Only {distinct} of {count} evaluation episodes differ from each other"
MESSAGE = (
    "{seen}: evaluation.env {env} gives the same observations for each seed, so that numbers such as eval/return_std "
    "describe only {distinct} episode{s}. If the first states are to depend on the seed, let reset(seed=…) call "
    "super().reset(seed=seed) and draw from self.np_random, and remove what fixes them from evaluation.env_kwargs. "
    "Otherwise set evaluation.episodes={distinct}{sampling}."
)
SAMPLING = ", or evaluation.deterministic=False to sample the actions"


def describe_identical(episodes: Sequence[Episode], *, env: str, deterministic: bool) -> str | None:
    """Returns a warning if at most half of the episodes of an evaluation differ from each other.

    The warning is true only if seeds have no effect, see :func:`seeds_have_effect`: a policy may reach the same states
    in environments that differ elsewhere.

    Args:
        episodes: Episodes that were played with different seeds.
        env: Name of the environment.
        deterministic: ``evaluation.deterministic``.
    """
    count, distinct = len(episodes), len(set(map(_course, episodes)))
    if distinct * 2 > count or any(episode.digests is None for episode in episodes):
        return None
    seen = (ALL if distinct == 1 else SOME).format(count=count, distinct=distinct)
    return MESSAGE.format(
        seen=seen, env=env, distinct=distinct, s="s" if distinct > 1 else "", sampling=SAMPLING if deterministic else ""
    )


def _course(episode: Episode) -> tuple[Any, ...]:
    """Returns what two episodes have in common if all their observations, rewards and actions are the same."""
    actions = episode.actions
    taken = repr(actions.tolist()) if actions.dtype == object else actions.tobytes()
    states = None if episode.digests is None else episode.digests.tobytes()
    return episode.task, episode.length, episode.terminated, taken, states


def seeds_have_effect(make_env: EnvFactory, seed: int) -> bool:
    """Returns whether an environment goes another course from ``seed + 1`` than from ``seed``, with random actions."""
    return _random_course(make_env, seed, seed) != _random_course(make_env, seed + 1, seed)


def _random_course(make_env: EnvFactory, seed: int, action_seed: int) -> list[int]:
    """Returns the digests of observations and rewards from the reset of a new environment on."""
    with env_call(), closing_env(make_env()) as env:
        env.action_space.seed(action_seed)
        digests = [fingerprint(env.reset(seed=seed)[0], 0.0).digest]
        with contextlib.suppress(Exception):  # a random action that is not allowed now
            for _ in range(COMPARED_STEPS):
                observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
                digests.append(fingerprint(observation, reward_of(reward)).digest)
                if terminated or truncated:
                    break
    return digests
