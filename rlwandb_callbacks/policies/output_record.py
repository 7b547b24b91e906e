"""What the outputs of a policy have in common, over all batches and evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlwandb_callbacks.policies.action_extremes import ActionExtremes
from rlwandb_callbacks.policies.probability_rows import ProbabilityRows


@dataclass
class OutputRecord:
    """Record of the outputs for one action space, which all readers of a policy share.

    Attributes:
        rows: Whether scores without a name are probabilities.
        extremes: Extremes of the actions.
        trial_output: Output of a dry run that was read last.
    """

    rows: ProbabilityRows = field(default_factory=ProbabilityRows)
    extremes: ActionExtremes = field(default_factory=ActionExtremes)
    trial_output: Any = None

    def begin_trial(self) -> None:
        """Marks the beginning of a dry run."""
        self.rows.is_trial = True

    def end_trial(self) -> None:
        """Decides from the outputs of a dry run; its actions do not count, as its observations may not occur."""
        self.rows.end_trial()
        self.trial_output = None
        self.extremes.clear()
