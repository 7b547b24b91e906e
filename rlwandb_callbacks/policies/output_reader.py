"""Reads the outputs of policies: tensors, distributions, mappings, tuples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch.distributions import Distribution

from rlwandb_callbacks.core.episode import Floats, Gaussian, PolicyScores, PolicyStep, Probabilities, QValues, groups_of
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.distribution_modes import override_note
from rlwandb_callbacks.policies.output_actions import action_batch, first_invalid_action
from rlwandb_callbacks.policies.output_discrete import CategoricalSpace
from rlwandb_callbacks.policies.output_distributions import action_of, moments_of, unwrapped
from rlwandb_callbacks.policies.output_messages import allowed_outputs, describe_output, valid_integers
from rlwandb_callbacks.policies.output_tensors import is_array, softmax, to_numpy
from rlwandb_callbacks.policies.output_tuples import (
    ACTION_KEYS,
    CHOSEN_Q_KEYS,
    DISTRIBUTION_KEYS,
    LOG_STD_KEYS,
    MEAN_KEYS,
    Q_KEYS,
    STD_KEYS,
    VALUE_KEYS,
    has_gaussian_shapes,
    named_entries,
    state_value,
)

SOFTMAX_OF_Q = "softmax of q-values"
INVALID_STD = (
    "The policy returned standard deviations that are negative or NaN, so that its mean is taken as the action and no "
    "probabilities are shown. Return standard deviations of at least 0, or log_std."
)


@dataclass(frozen=True)
class OutputReader:
    """Converts the outputs of a policy to actions and scores.

    Args:
        action_space: Action space of one environment.
        action_logger: Scores to show: ``q_value`` or ``action_probability``; True or False for those that the policy
            outputs.
        tensor_meaning: Content of a bare tensor ``[B, A]``: ``q_values``, ``logits`` or ``unknown``.
        deterministic: Whether to take the mode of a distribution instead of a sample.
        reads_std: Whether the second entry of a tuple for a ``Box`` space, if it has the shape of a standard deviation,
            is the one of a Gaussian whose mean is the first entry.
        reads_value: Whether an entry of a tuple without names that has the shape of V(s) is V(s).
        notes: Sentences about outputs that are read in a way that users should know of; added while reading.
    """

    action_space: Space[Any]
    action_logger: bool | str
    tensor_meaning: str
    deterministic: bool
    reads_std: bool = False
    reads_value: bool = True
    notes: set[str] = field(default_factory=set, compare=False)

    def read(self, output: Any, batch_size: int) -> PolicyStep:
        """Converts the output for ``batch_size`` states.

        Raises:
            PolicyError: If it cannot be read, contains an invalid action, or lacks the wanted q-values.
        """
        step = self._read(output, batch_size)
        if step is None:
            raise PolicyError(
                f"The policy returned {describe_output(output)} for {batch_size} observations, which cannot be read as "
                f"actions or scores for {self.action_space}. {allowed_outputs(self.action_space)}"
            )
        invalid = first_invalid_action(self.action_space, step.actions)
        if invalid is not None:
            space, action = invalid
            raise PolicyError(
                f"The policy returned {describe_output(output)}, in which {action} is not in {space}. "
                f"{valid_integers(space)} {allowed_outputs(self.action_space)}"
            )
        has_q_values = any(isinstance(group, QValues) for group in groups_of(step.scores))
        if self.action_logger == "q_value" and self._categorical is not None and not has_q_values:
            raise PolicyError(
                f"action_logger is 'q_value', but the policy returned {describe_output(output)}, which has no "
                "q-values. Set action_logger to 'action_probability' or true, or evaluation.policy to the q-network."
            )
        return step

    def with_scores(self) -> OutputReader:
        """Returns a reader with the same notes that also gives scores which are not to be shown."""
        return replace(self, action_logger=self.action_logger or True)

    @cached_property
    def _categorical(self) -> CategoricalSpace | None:
        return CategoricalSpace.from_space(self.action_space)

    def _read(self, output: Any, batch_size: int) -> PolicyStep | None:
        if isinstance(output, PolicyStep):
            return output if self._is_consistent(output, batch_size) else None
        if isinstance(output, Distribution):
            return self._from_distribution(output, batch_size)
        if isinstance(output, Mapping):
            return self._from_mapping(output, batch_size)
        if hasattr(output, "_fields") and (named := named_entries(output)) is not None:
            return self._read(named, batch_size)
        if isinstance(output, tuple | list):
            return self._from_sequence(output, batch_size)
        if is_array(output):
            return self._from_array(output, batch_size)
        wrapped = unwrapped(output)
        return None if wrapped is None else self._read(wrapped, batch_size)

    def _is_consistent(self, step: PolicyStep, batch_size: int) -> bool:
        scores = step.scores
        shapes = [group.values.shape for group in groups_of(scores)]
        if shapes and self._categorical is not None and shapes != [(batch_size, n) for n in self._categorical.sizes]:
            return False
        lengths = [_batch_size_of(step.actions), *(shape[0] for shape in shapes)]
        if isinstance(scores, Gaussian):
            lengths.append(len(scores.mean))
        per_state = (values for values in (step.values, step.chosen_q) if values is not None)
        return set(lengths) == {batch_size} and all(np.shape(values) == (batch_size,) for values in per_state)

    def _from_actions(self, output: Any, batch_size: int, scores: PolicyScores | None = None) -> PolicyStep | None:
        actions = action_batch(self.action_space, output, batch_size)
        return None if actions is None else PolicyStep(actions, scores)

    def _from_compound_actions(self, output: Any, batch_size: int) -> PolicyStep | None:
        is_compound = isinstance(self.action_space, spaces.Dict | spaces.Tuple)
        return self._from_actions(output, batch_size) if is_compound else None

    def _from_scores(self, output: Any, batch_size: int, meaning: str) -> PolicyStep | None:
        """Reads scores of a finite action space: ``q_values``, ``logits``, ``probs`` or a ``distribution``."""
        space = self._categorical
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

    def _from_sequence(self, output: Sequence[Any], batch_size: int) -> PolicyStep | None:
        """Reads one entry per dimension or part of the action, else the first entry that is readable."""
        if self._categorical is not None and not self._categorical.is_single:
            step = self._from_scores(output, batch_size, self._bare_meaning)
            step = step or self._from_scores(output, batch_size, "distribution")
            if step is not None:
                return step
        whole = self._from_compound_actions(output, batch_size)
        if whole is not None:
            return whole
        for index, entry in enumerate(output):
            further = output[index + 1 :]
            step = self._from_gaussian(entry, further, batch_size)
            if step is not None:
                return step
            value = state_value(entry, further, self.action_space, batch_size) if self.reads_value else None
            step = self._from_entry(entry, batch_size, value)
            if step is not None:
                return step if step.values is not None or value is None else replace(step, values=value)
        return None

    def _from_entry(self, entry: Any, batch_size: int, value: Floats | None) -> PolicyStep | None:
        """Reads an entry of a tuple; a tensor of unknown meaning beside V(s) contains the logits of an actor-critic."""
        if (
            is_array(entry)
            and value is not None
            and self.tensor_meaning == "unknown"
            and self.action_logger != "q_value"
        ):
            step = self._from_scores(entry, batch_size, "logits")
            if step is not None:
                return step
        return self._read(entry, batch_size)

    def _from_gaussian(self, mean: Any, further: Sequence[Any], batch_size: int) -> PolicyStep | None:
        """Reads a tuple that begins with mean and standard deviation, and may go on with V(s)."""
        if not self.reads_std or not isinstance(self.action_space, spaces.Box):
            return None
        shape = (batch_size, *self.action_space.shape)
        if not has_gaussian_shapes(mean, further, shape) or not _are_stds(further[0]):
            return None
        step = self._from_moments(mean, further[0], batch_size)
        values = {"value": further[1]} if len(further) == 2 and self.reads_value else {}
        return None if step is None else replace(step, values=_per_state(values, VALUE_KEYS, batch_size))

    def _from_array(self, output: Any, batch_size: int) -> PolicyStep | None:
        step = self._from_scores(output, batch_size, self._bare_meaning)
        if step is None:
            return self._from_actions(output, batch_size)
        shows_scores = self.action_logger or self.tensor_meaning != "unknown"
        return step if shows_scores else PolicyStep(step.actions)

    @property
    def _bare_meaning(self) -> str:
        """Meaning of a bare tensor; if unknown, q-values for one dimension and logits for several."""
        if self.tensor_meaning != "unknown":
            return self.tensor_meaning
        is_single = self._categorical is not None and self._categorical.is_single
        is_q = self.action_logger == "q_value" or (is_single and self.action_logger != "action_probability")
        return "q_values" if is_q else "logits"

    def _from_distribution(self, distribution: Distribution, batch_size: int) -> PolicyStep | None:
        step = self._from_scores(distribution, batch_size, "distribution")
        if step is not None or (self._categorical is not None and self._categorical.is_single):
            return step
        if not self.notes and (note := override_note(distribution)) is not None:
            self.notes.add(note)
        action = action_of(distribution, deterministic=self.deterministic)
        scores = moments_of(distribution) if isinstance(self.action_space, spaces.Box) else None
        return self._from_actions(action, batch_size, scores)

    def _from_mapping(self, output: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        whole = self._from_compound_actions(output, batch_size)
        if whole is not None:
            return whole
        scored = self._from_named_scores(output, batch_size)
        action = _first(output, ACTION_KEYS)
        actions = None if action is None else action_batch(self.action_space, action, batch_size)
        is_sampled_here = actions is None and not self.deterministic
        if actions is None:
            if scored is None:
                return None
            actions = scored.actions
        chosen_q = self._q_of(actions, output, batch_size)
        if chosen_q is None and not is_sampled_here:  # a sample made here is not the action that the critic rated
            chosen_q = _per_state(output, CHOSEN_Q_KEYS, batch_size)
        values = _per_state(output, VALUE_KEYS, batch_size)
        return PolicyStep(actions, None if scored is None else scored.scores, values, chosen_q)

    def _q_of(self, actions: Any, output: Mapping[Any, Any], batch_size: int) -> Floats | None:
        q_values = _first(output, Q_KEYS)
        if self._categorical is None or q_values is None:
            return None
        split = self._categorical.split_scores(_as_arrays(q_values), batch_size, "q_values")
        return None if split is None else self._categorical.q_of(actions, split)

    def _from_named_scores(self, output: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        for meaning, scores in self._named_scores(output).items():
            step = None if scores is None else self._from_scores(_as_arrays(scores), batch_size, meaning)
            if step is not None:
                return step
        distribution = _first(output, DISTRIBUTION_KEYS)
        if distribution is not None:
            return self._read(distribution, batch_size)
        return self._from_loc_and_scale(output, batch_size) if isinstance(self.action_space, spaces.Box) else None

    def _named_scores(self, output: Mapping[Any, Any]) -> dict[str, Any]:
        named = {"q_values": _first(output, Q_KEYS), "probs": output.get("probs"), "logits": output.get("logits")}
        has_policy = _first(output, ("probs", "logits", *DISTRIBUTION_KEYS)) is not None
        if self.action_logger == "action_probability" and has_policy:
            del named["q_values"]
        return named

    def _from_loc_and_scale(self, output: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        mean, std, log_std = (_first(output, keys) for keys in (MEAN_KEYS, STD_KEYS, LOG_STD_KEYS))
        if mean is None or (std is None and log_std is None):
            return None
        has_action = _first(output, ACTION_KEYS) is not None  # may be a function of that Gaussian, such as its tanh
        if output.get("loc") is None and has_action:
            return None
        std = np.exp(to_numpy(log_std).astype(np.float64)) if std is None else std
        step = self._from_moments(mean, std, batch_size)
        if step is None or not has_action or not isinstance(step.scores, Gaussian):
            return step
        return replace(step, scores=replace(step.scores, entropy=np.full(batch_size, np.nan)))

    def _from_moments(self, mean: Any, std: Any, batch_size: int) -> PolicyStep | None:
        mean, std = (to_numpy(each).astype(np.float64) for each in (mean, std))
        if mean.shape[:1] != (batch_size,):
            return None
        std = np.broadcast_to(std, mean.shape)
        if not _are_stds(std):
            self.notes.add(INVALID_STD)
            return self._from_actions(mean, batch_size)
        std = np.abs(std)  # -0.0
        action = mean if self.deterministic else torch.normal(torch.tensor(mean), torch.tensor(std))
        return self._from_actions(action, batch_size, Gaussian(mean, std))


def _are_stds(numbers: Any) -> bool:
    return bool(np.all(to_numpy(numbers) >= 0))


def _batch_size_of(actions: Any) -> int:
    if isinstance(actions, Mapping):
        return _batch_size_of(next(iter(actions.values())))
    return _batch_size_of(actions[0]) if isinstance(actions, tuple) else len(actions)


def _first(output: Mapping[Any, Any], keys: Sequence[str]) -> Any:
    return next((output[key] for key in keys if output.get(key) is not None), None)


def _as_arrays(scores: Any) -> Any:
    """Converts lists of numbers to an array; a list with a tensor per dimension stays as it is."""
    is_split = isinstance(scores, list | tuple) and all(map(is_array, scores))
    return scores if is_split else to_numpy(scores)


def _per_state(output: Mapping[Any, Any], keys: Sequence[str], batch_size: int) -> Floats | None:
    """Reads one number per state, ``[B]`` or ``[B, 1]``, from the first key with that many numbers."""
    for key in keys:
        values = None if output.get(key) is None else to_numpy(output[key])
        if values is not None and values.size == batch_size:
            return values.astype(np.float64).reshape(batch_size)
    return None
