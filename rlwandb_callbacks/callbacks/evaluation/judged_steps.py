"""Which steps of the evaluation episodes can be compared with the predictions of a critic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlwandb_callbacks.callbacks.ranks import announce
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.step_limit import StepLimit, known_limits
from rlwandb_callbacks.evaluation.summary import Evaluation


class JudgedSteps:
    """Step limit of one training, and a message, given once, if it leaves no step to judge.

    Args:
        max_steps: ``evaluation.max_steps``.
    """

    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps
        self._limit = StepLimit()
        self._has_explained = False

    def limit(self, episodes: Sequence[Episode], evaluator: Evaluator | None) -> int | None:
        """Adds the episodes of an evaluation, and returns their step limit.

        Args:
            episodes: At least one episode.
            evaluator: Evaluator that played them; None for episodes of ``validation_step``.
        """
        known = () if evaluator is None else known_limits(evaluator.env.step_limits, self._max_steps)
        return self._limit.update(episodes, known)

    def explain(self, evaluation: Evaluation) -> None:
        """Says once per training why no step can be judged, if none can."""
        if not self._has_explained and (reason := evaluation.describe_unjudged()) is not None:
            self._has_explained = True
            announce(reason)

    def state(self) -> dict[str, int]:
        """Returns plain numbers, from which :meth:`restore` continues."""
        return self._limit.state()

    def restore(self, state: Mapping[str, int]) -> None:
        """Continues from what :meth:`state` returned."""
        self._limit.restore(state)
