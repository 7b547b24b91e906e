"""Wrappers that change rewards or cut games, so that the return of an episode is not the score of a game."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.core.class_names import has_base_named
from rlwandb_callbacks.environments.wrappers import AnyVectorWrapper, has_own, sub_envs, wrapper_chain

WAS_REAL_DONE = "was_real_done"  # attribute of the EpisodicLifeEnv of Baselines, which many libraries have copied
LIFE_LOSS = "terminal_on_life_loss"  # attribute of Gymnasium's AtariPreprocessing
LIFE_NAMES = re.compile(r"episodic_?life|lives|life_?(loss|lost|episode|term|end)|(of|lose|lost)_?life", re.IGNORECASE)
REWARD_NAMES = re.compile(r"reward.*(clip|shap)|(clip|shap|sign)\w*reward", re.IGNORECASE)
VECTOR_CHANGERS = ("VectorRewardWrapper", "VectorizeTransformReward")
RECORDERS = ("RecordEpisodeStatistics", "Monitor")
OWN_PACKAGES = ("gymnasium", __name__.partition(".")[0])
CUT, CHANGED = "{names} ends an episode when a life is lost", "{names} changes rewards"
WITH_SCORE = (
    "evaluation.env {env}: {effects}, so eval/return_mean is not the mean score of whole games. eval/score_mean "
    "is: the sum of the rewards inside {names} until the game is over. To evaluate whole games, set evaluation.env "
    "to an environment without {names}."
)
WITHOUT_SCORE = (
    "evaluation.env {env}: {effects}, so eval/return_mean is not the mean score of whole games, which is not known. "
    "Set evaluation.env to an environment without {names}."
)


@dataclass(frozen=True)
class Shaping:
    """What stands between an environment and the score of its game.

    Args:
        cutters: Names of wrappers that end an episode when a life is lost.
        changers: Names of wrappers that change rewards.
        others: Names of further wrappers with a ``step`` of their own outside a recorder of episodes.
        depth: Number of wrappers outside the layer whose rewards and ends are those of the game.
        goes_on: Whether a reset after a lost life goes on with the same game.
        has_recorder: A ``RecordEpisodeStatistics`` or ``Monitor`` inside reports the score in ``info``.
        is_of_single_env: The wrappers are around a single environment and not around a vector.
    """

    cutters: tuple[str, ...]
    changers: tuple[str, ...]
    others: tuple[str, ...]
    depth: int
    goes_on: bool
    has_recorder: bool
    is_of_single_env: bool = True

    @property
    def is_known(self) -> bool:
        """Whether some wrapper is known to cut games or to change rewards."""
        return bool(self.cutters or self.changers)

    def describe(self, env: str, *, has_score: bool) -> str:
        """Returns a warning that names the wrappers."""
        effects = [CUT.format(names=" and ".join(self.cutters))] if self.cutters else []
        effects += [CHANGED.format(names=" and ".join(self.changers))] if self.changers else []
        names = [*self.cutters, *self.changers] or list(self.others)
        listed = " and ".join(names)
        if not effects:
            effects = [f"{listed} changes rewards or ends episodes"]
        text = WITH_SCORE if has_score else WITHOUT_SCORE
        return text.format(env=env, effects=", and ".join(effects), names=listed)


def find_shaping(env: Any) -> Shaping | None:
    """Returns the wrappers around an environment that change rewards or cut games; None if there are none.

    Of a vector with environments in this process, those around its first environment.
    """
    chain = list(wrapper_chain(env))
    if isinstance(env, VectorEnv):
        inner = sub_envs(chain[-1])
        around = _in_chain(chain)
        if around is not None:
            return replace(around, is_of_single_env=False)
        return find_shaping(inner[0]) if inner else None
    return _in_chain(chain)


def _in_chain(chain: Sequence[Any]) -> Shaping | None:
    wrappers = chain[:-1]
    cutters = [index for index, layer in enumerate(wrappers) if _cuts(layer)]
    changers = [index for index, layer in enumerate(wrappers) if _changes_rewards(layer)]
    recorders = [index for index, layer in enumerate(wrappers) if has_base_named(type(layer), *RECORDERS)]
    recorder = max(recorders, default=0)
    others = [i for i in range(recorder) if i not in cutters + changers and _may_change(wrappers[i])]
    known = [*cutters, *changers]
    has_recorder = any(index < recorder for index in known + others)
    if not known and not has_recorder:
        return None
    depth = max([recorder if has_recorder else 0, *(index + 1 for index in known)])
    return Shaping(
        cutters=_names(wrappers, cutters),
        changers=_names(wrappers, changers),
        others=_names(wrappers, others),
        depth=depth,
        goes_on=any(has_own(layer, WAS_REAL_DONE) for layer in wrappers),
        has_recorder=has_recorder and depth == recorder,
    )


def _names(wrappers: Sequence[Any], indices: Sequence[int]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(type(wrappers[index]).__name__ for index in indices))


def _cuts(layer: Any) -> bool:
    if has_own(layer, WAS_REAL_DONE):
        return True
    given = getattr(layer, LIFE_LOSS) if has_own(layer, LIFE_LOSS) else None
    return bool(LIFE_NAMES.search(type(layer).__name__)) if given is None else given is True


def _changes_rewards(layer: Any) -> bool:
    if isinstance(layer, gym.RewardWrapper) or has_base_named(type(layer), *VECTOR_CHANGERS):
        return True
    return bool(REWARD_NAMES.search(type(layer).__name__))


def _may_change(layer: Any) -> bool:
    """Returns whether a wrapper has a ``step`` whose effect on rewards and ends is not known."""
    if isinstance(layer, gym.ObservationWrapper | gym.ActionWrapper):
        return False
    step = type(layer).step
    is_own = step.__module__.partition(".")[0] in OWN_PACKAGES
    return not is_own and step not in (gym.Wrapper.step, AnyVectorWrapper.step)
