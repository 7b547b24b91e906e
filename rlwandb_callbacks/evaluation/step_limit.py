"""Number of steps after which the episodes of a training's evaluations are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlwandb_callbacks.config import EvaluationConfig
from rlwandb_callbacks.core.episode import Episode

DEFAULT_MAX_STEPS = EvaluationConfig.max_steps


class StepLimit:
    """Step limit of all episodes of a training, whether they reach it or not.

    It is the smallest of these that no episode has exceeded, in this evaluation or an earlier one: the limits that the
    environment and ``evaluation.max_steps`` set, and the length of the longest episode that was cut. That length counts
    beside a limit that is set, as a wrapper may repeat actions, so that episodes are cut earlier than the limit states.

    ``evaluation.max_steps`` at its default, which guards against endless episodes, is a limit only once it has cut one.

    Example:
        >>> import numpy as np
        >>> cut = Episode(actions=np.zeros(5), rewards=np.zeros(5), terminated=False, truncated=True)
        >>> StepLimit().update([cut], known=()), StepLimit().update([cut], known=(3, 20, 30))
        (5, 5)
        >>> StepLimit().update([Episode(actions=np.zeros(5), rewards=np.zeros(5), terminated=True)], known=(3, 20, 30))
        20
    """

    def __init__(self) -> None:
        self._longest = self._longest_cut = 0

    def update(self, episodes: Sequence[Episode], known: Sequence[int]) -> int | None:
        """Adds the episodes of an evaluation, and returns the limit; None if none is known.

        Args:
            episodes: At least one episode.
            known: Limits of the environment and the settings, see :func:`known_limits`.
        """
        self._longest = max(self._longest, *(episode.length for episode in episodes))
        self._longest_cut = max(self._longest_cut, *(each.length for each in episodes if each.is_cut), 0)
        cut = [self._longest_cut] if self._longest_cut else []
        return min((limit for limit in (*known, *cut) if limit >= self._longest), default=self._longest_cut or None)

    def state(self) -> dict[str, int]:
        """Returns plain numbers, from which :meth:`restore` continues; nothing before the first evaluation."""
        return {"longest_episode": self._longest, "longest_cut_episode": self._longest_cut} if self._longest else {}

    def restore(self, state: Mapping[str, int]) -> None:
        """Continues from what :meth:`state` returned."""
        self._longest = int(state.get("longest_episode", 0))
        self._longest_cut = int(state.get("longest_cut_episode", 0))


def known_limits(of_env: Sequence[int], max_steps: int) -> tuple[int, ...]:
    """Returns the limits of the environment and, if it was lowered, ``evaluation.max_steps``.

    Example:
        >>> known_limits((500,), 100), known_limits((500,), 27_000)
        ((500, 100), (500,))
    """
    return (*of_env, max_steps) if max_steps < DEFAULT_MAX_STEPS else tuple(of_env)
