"""Makes the steps of a policy from actions, scores, or the moments of a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces

from rlwandb_callbacks.core.episode import Gaussian, PolicyScores, PolicyStep, Probabilities, QValues
from rlwandb_callbacks.policies.action_extremes import ActionExtremes
from rlwandb_callbacks.policies.output_actions import action_batch
from rlwandb_callbacks.policies.output_discrete import CategoricalSpace
from rlwandb_callbacks.policies.output_tensors import softmax, to_numpy

SOFTMAX_OF_Q = "softmax of q-values"
INVALID_STD = (
    "The policy returned standard deviations that are negative or NaN, so that its mean is taken as the action and no "
    "probabilities are shown. Return standard deviations of at least 0, or log_std."
)


@dataclass(frozen=True)
class StepBuilder:
    """Makes steps for one action space.

    Args:
        action_space: Action space of one environment.
        action_logger: Scores to show, as for ``OutputReader``.
        deterministic: Whether to take the most likely action instead of a sample.
        notes: Sentences about outputs that are read in a way that users should know of; added while reading.
        extremes: Extremes of the actions; added while reading.
    """

    action_space: Space[Any]
    action_logger: bool | str
    deterministic: bool
    notes: set[str]
    extremes: ActionExtremes

    @cached_property
    def categorical(self) -> CategoricalSpace | None:
        """The space as categorical dimensions; None if it is not finite."""
        return CategoricalSpace.from_space(self.action_space)

    def actions_of(self, output: Any, batch_size: int) -> Any:
        """Converts actions to a batch that environments take; returns None if they have another form."""
        return action_batch(self.action_space, output, batch_size, self.extremes.add)

    def from_actions(self, output: Any, batch_size: int, scores: PolicyScores | None = None) -> PolicyStep | None:
        """Reads actions; returns None if they have another form."""
        actions = self.actions_of(output, batch_size)
        return None if actions is None else PolicyStep(actions, scores)

    def from_compound_actions(self, output: Any, batch_size: int) -> PolicyStep | None:
        """Reads the actions of a ``Dict`` or ``Tuple`` space; returns None for other spaces."""
        is_compound = isinstance(self.action_space, spaces.Dict | spaces.Tuple)
        return self.from_actions(output, batch_size) if is_compound else None

    def from_scores(self, output: Any, batch_size: int, meaning: str) -> PolicyStep | None:
        """Reads scores of a finite action space: ``q_values``, ``logits``, ``probs`` or a ``distribution``."""
        space = self.categorical
        if space is None:
            return None
        if meaning == "distribution":
            scores = space.split_distribution(output, batch_size)
        else:
            scores = space.split_scores(output, batch_size, meaning)
        if scores is None:
            return None
        if meaning != "q_values":
            probabilities = [softmax(logits) for logits in scores] if meaning == "logits" else scores
            return space.act([Probabilities(p) for p in probabilities], samples=not self.deterministic)
        step = space.act([QValues(q) for q in scores], samples=False)
        if self.action_logger != "action_probability":
            return step
        shown = space.join([Probabilities(softmax(q), SOFTMAX_OF_Q) for q in scores])
        return PolicyStep(step.actions, shown, chosen_q=space.q_of(step.actions, scores))

    def from_moments(self, mean: Any, std: Any, batch_size: int) -> PolicyStep | None:
        """Reads mean and standard deviation of a Gaussian, of which the action is the mean or a sample."""
        mean, std = (to_numpy(each).astype(np.float64) for each in (mean, std))
        if mean.shape[:1] != (batch_size,):
            return None
        std = np.broadcast_to(std, mean.shape)
        if not are_stds(std):
            self.notes.add(INVALID_STD)
            return self.from_actions(mean, batch_size)
        std = np.abs(std)  # -0.0
        action = mean if self.deterministic else torch.normal(torch.tensor(mean), torch.tensor(std))
        return self.from_actions(action, batch_size, Gaussian(mean, std))


def are_stds(numbers: Any) -> bool:
    """Returns whether all numbers may be standard deviations: none is negative or NaN."""
    return bool(np.all(to_numpy(numbers) >= 0))
