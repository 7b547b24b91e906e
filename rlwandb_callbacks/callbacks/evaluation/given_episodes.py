"""Episodes that ``validation_step`` returns, for modules without an environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.core.episode import Episode

POLICY_WITHOUT_ENV = (
    "evaluation.policy is set and evaluation.env is not, so no episodes are played. Set evaluation.env too."
)


def takes_given_episodes(
    own: EvaluationConfig, before: Sequence[EvaluationConfig], after: Sequence[EvaluationConfig]
) -> bool:
    """Returns whether an evaluation shows the episodes of ``validation_step``, rather than another one of the Trainer.

    That is the first one without an environment, or else the first one of all.
    """
    if own.env is None:
        return all(other.env is not None for other in before)
    return not before and all(other.env is not None for other in after)


class GivenEpisodes:
    """Episodes of the present validation.

    Args:
        warn_once: Called with a message and ``kind=``.
    """

    def __init__(self, warn_once: Callable[..., None]) -> None:
        self._warn_once = warn_once
        self._episodes: list[Episode] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the episodes."""
        return {**vars(self), "_episodes": []}

    def clear(self) -> None:
        """Drops the episodes."""
        self._episodes = []

    def add(self, outputs: Any) -> None:
        """Adds the entry ``episodes`` of the outputs of ``validation_step``, if there is one."""
        given = outputs.get("episodes") if isinstance(outputs, Mapping) else None
        if not isinstance(given, list | tuple):
            return
        episodes = [episode for episode in given if isinstance(episode, Episode)]
        if len(episodes) < len(given):
            self._warn_once(
                "validation_step returned 'episodes' that are not rlwandb_callbacks.Episode instances; they are left "
                "out.",
                kind="given episodes",
            )
        self._episodes += episodes

    def take(self, ranks: Ranks) -> list[Episode]:
        """Returns the episodes of all ranks, and drops them."""
        gathered = [episode for of_rank in ranks.gather(self._episodes) for episode in of_rank]
        self.clear()
        return gathered
