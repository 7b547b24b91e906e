"""Scores of whole games beside the returns of episodes that wrappers have shaped, clipped or cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.evaluation.evaluator import Evaluator

TOLERANCE = 1e-4  # recorders round to six digits, or use single precision


class GameScores:
    """Decides whether the scores of a training are logged, and warns once of what makes them differ from returns.

    They are from the first evaluation on if wrappers are known to change rewards or to cut games; otherwise from the
    first one in which they differ from returns.

    Args:
        warn_once: Called with a message and ``kind=``.
    """

    def __init__(self, warn_once: Callable[..., None]) -> None:
        self._warn_once = warn_once
        self._have_differed = False

    def shown(self, episodes: Sequence[Episode], evaluator: Evaluator | None) -> Sequence[Episode]:
        """Returns the episodes of an evaluation, without their scores if these are not to be logged.

        Args:
            episodes: At least one episode.
            evaluator: Evaluator that played them; None for episodes of ``validation_step``, whose scores are kept.
        """
        if evaluator is None:
            return episodes
        differ = any(map(_differs, episodes))
        self._have_differed |= differ
        shaping = evaluator.shaping
        if shaping is not None:
            has_score = any(episode.score is not None for episode in episodes)
            if differ or (shaping.is_known and not has_score):
                warning = shaping.describe(evaluator.make_env.name, has_score=has_score)
                self._warn_once(warning, kind=f"score {has_score}")
            if shaping.is_known:
                return episodes
        return episodes if self._have_differed else [replace(episode, score=None) for episode in episodes]


def _differs(episode: Episode) -> bool:
    if episode.score is None:
        return False
    return not math.isclose(episode.score, episode.total_return, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
