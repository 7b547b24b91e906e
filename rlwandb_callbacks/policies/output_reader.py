"""Reads the outputs of policies: tensors, distributions, mappings, tuples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from torch.distributions import Distribution

from rlwandb_callbacks.core.episode import Floats, Gaussian, PolicyStep, QValues, groups_of
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.distribution_modes import override_note
from rlwandb_callbacks.policies.output_actions import first_invalid_action
from rlwandb_callbacks.policies.output_distributions import action_of, is_over_integers, moments_of, unwrapped
from rlwandb_callbacks.policies.output_mappings import MappingReader, numbers_per_state
from rlwandb_callbacks.policies.output_messages import allowed_outputs, describe_output, valid_integers
from rlwandb_callbacks.policies.output_record import OutputRecord
from rlwandb_callbacks.policies.output_steps import StepBuilder, are_stds
from rlwandb_callbacks.policies.output_tensors import as_arrays, as_integers, is_array
from rlwandb_callbacks.policies.output_tuples import (
    NO_ROLES,
    VALUE_KEYS,
    TupleRoles,
    has_gaussian_shapes,
    named_entries,
    state_value,
)
from rlwandb_callbacks.policies.probability_rows import NO_LONGER_PROBABILITIES, PROBABILITIES_NAMED_Q


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
        roles: Entries of a tuple without names that begins with a sample of the actions.
        notes: Sentences about outputs that are read in a way that users should know of; added while reading.
        record: What the outputs have in common; shared with the readers of other evaluations.
    """

    action_space: Space[Any]
    action_logger: bool | str
    tensor_meaning: str
    deterministic: bool
    reads_std: bool = False
    reads_value: bool = True
    roles: TupleRoles = NO_ROLES
    notes: set[str] = field(default_factory=set, compare=False)
    record: OutputRecord = field(default_factory=OutputRecord, compare=False)

    def read(self, output: Any, batch_size: int) -> PolicyStep:
        """Converts the output for ``batch_size`` states.

        Raises:
            PolicyError: If it cannot be read, contains an invalid action, or lacks the wanted q-values.
        """
        if self.record.rows.is_trial:
            self.record.trial_output = output
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
        if self.action_logger == "q_value" and self._builder.categorical is not None and not has_q_values:
            raise PolicyError(
                f"action_logger is 'q_value', but the policy returned {describe_output(output)}, which has no "
                "q-values. Set action_logger to 'action_probability' or true, or evaluation.policy to the q-network."
            )
        return step

    @property
    def records(self) -> list[OutputRecord]:
        """Its record, as a list."""
        return [self.record]

    def with_scores(self) -> OutputReader:
        """Returns a reader with the same notes and record that also gives scores which are not to be shown."""
        return replace(self, action_logger=self.action_logger or True)

    @cached_property
    def _builder(self) -> StepBuilder:
        return StepBuilder(self.action_space, self.action_logger, self.deterministic, self.notes, self.record.extremes)

    def _read(self, output: Any, batch_size: int) -> PolicyStep | None:
        if isinstance(output, PolicyStep):
            if isinstance(self.action_space, spaces.Box):
                self.record.extremes.add(self.action_space, np.asarray(output.actions))
            return output if self._is_consistent(output, batch_size) else None
        if isinstance(output, Distribution):
            return self._from_distribution(output, batch_size)
        if isinstance(output, Mapping):
            return self._mapping_reader.read(output, batch_size)
        if hasattr(output, "_fields") and (named := named_entries(output)) is not None:
            return self._read(named, batch_size)
        if isinstance(output, tuple | list):
            return (self._from_roles if self.roles.fit(output) else self._from_sequence)(output, batch_size)
        if is_array(output):
            return self._from_array(output, batch_size)
        wrapped = unwrapped(output)
        return None if wrapped is None else self._read(wrapped, batch_size)

    def _is_consistent(self, step: PolicyStep, batch_size: int) -> bool:
        scores = step.scores
        shapes = [group.values.shape for group in groups_of(scores)]
        if (
            shapes
            and self._builder.categorical is not None
            and shapes != [(batch_size, n) for n in self._builder.categorical.sizes]
        ):
            return False
        lengths = [_batch_size_of(step.actions), *(shape[0] for shape in shapes)]
        if isinstance(scores, Gaussian):
            lengths.append(len(scores.mean))
        per_state = (values for values in (step.values, step.chosen_q) if values is not None)
        return set(lengths) == {batch_size} and all(np.shape(values) == (batch_size,) for values in per_state)

    def _from_roles(self, output: Sequence[Any], batch_size: int) -> PolicyStep | None:
        mean, value = self.roles.mean, self.roles.value
        step = self._read(output[0] if mean is None or not self.deterministic else output[mean], batch_size)
        if step is None or value is None:
            return step
        return replace(step, values=numbers_per_state({"value": output[value]}, VALUE_KEYS, batch_size))

    def _from_sequence(self, output: Sequence[Any], batch_size: int) -> PolicyStep | None:
        """Reads one entry per dimension or part of the action, else the first entry that is readable."""
        if self._builder.categorical is not None and not self._builder.categorical.is_single:
            step = self._from_unnamed_scores(output, batch_size, self._bare_meaning)
            step = step or self._builder.from_scores(output, batch_size, "distribution")
            if step is not None:
                return step
        whole = self._builder.from_compound_actions(output, batch_size)
        if whole is not None:
            return whole
        sampled = self._mapping_reader.read_sample(output, batch_size)
        if sampled is not None:
            return sampled
        for index, entry in enumerate(output):
            further = output[index + 1 :]
            step = self._from_gaussian(entry, further, batch_size)
            if step is not None:
                return step
            value = state_value(entry, further, self.action_space, batch_size) if self.reads_value else None
            step = self._from_entry(entry, batch_size, value)
            if step is not None:
                return step if step.values is not None or value is None else replace(step, values=value)
        return self._builder.from_actions(output, batch_size) if isinstance(output, list) else None

    def _from_entry(self, entry: Any, batch_size: int, value: Floats | None) -> PolicyStep | None:
        """Reads an entry of a tuple; a tensor of unknown meaning beside V(s) contains the logits of an actor-critic."""
        if (
            is_array(entry)
            and value is not None
            and self.tensor_meaning == "unknown"
            and self.action_logger != "q_value"
        ):
            step = self._from_unnamed_scores(entry, batch_size, "logits")
            if step is not None:
                return step
        return self._read(entry, batch_size)

    def _from_gaussian(self, mean: Any, further: Sequence[Any], batch_size: int) -> PolicyStep | None:
        """Reads a tuple that begins with mean and standard deviation, and may go on with V(s)."""
        if not self.reads_std or not isinstance(self.action_space, spaces.Box):
            return None
        shape = (batch_size, *self.action_space.shape)
        if not has_gaussian_shapes(mean, further, shape) or not are_stds(further[0]):
            return None
        step = self._builder.from_moments(mean, further[0], batch_size)
        values = {"value": further[1]} if len(further) == 2 and self.reads_value else {}
        return None if step is None else replace(step, values=numbers_per_state(values, VALUE_KEYS, batch_size))

    def _from_array(self, output: Any, batch_size: int) -> PolicyStep | None:
        output = as_arrays(output)
        step = self._from_unnamed_scores(output, batch_size, self._bare_meaning)
        if step is None:
            return self._builder.from_actions(output, batch_size)
        are_known = self.tensor_meaning != "unknown" or self.record.rows.are_probabilities()
        shows_scores = self.action_logger or are_known
        return step if shows_scores else PolicyStep(step.actions)

    def _from_unnamed_scores(self, output: Any, batch_size: int, meaning: str) -> PolicyStep | None:
        """Reads scores with a meaning that other information implies, unless they are probabilities in every batch."""
        space = self._builder.categorical
        if space is None:
            return None
        output = as_arrays(output)
        columns = space.split_scores(output, batch_size, meaning if meaning == "q_values" else "probs")
        if columns is not None:
            self.record.rows.add(columns, is_binary=space.is_binary)
            meaning = self._recorded_meaning(meaning)
        return self._builder.from_scores(output, batch_size, meaning)

    def _recorded_meaning(self, meaning: str) -> str:
        """Returns ``probs`` if all scores so far are probabilities, else the given meaning; the user decides first."""
        if self.action_logger == "q_value":
            return meaning
        rows = self.record.rows
        if self.tensor_meaning == "q_values":
            if rows.are_probabilities() and rows.have_many_numbers():
                self.notes.add(PROBABILITIES_NAMED_Q)
            return meaning
        if rows.were_probabilities():
            self.notes.add(NO_LONGER_PROBABILITIES.format(meaning=meaning.replace("_", "-")))
        return "probs" if rows.are_probabilities() else meaning

    @cached_property
    def _mapping_reader(self) -> MappingReader:
        return MappingReader(self._builder, self._read, self._from_unnamed_scores)

    @property
    def _bare_meaning(self) -> str:
        """Meaning of a bare tensor; if unknown, q-values for one dimension and logits for several."""
        if self.tensor_meaning != "unknown":
            return self.tensor_meaning
        is_single = self._builder.categorical is not None and self._builder.categorical.is_single
        is_q = self.action_logger == "q_value" or (is_single and self.action_logger != "action_probability")
        return "q_values" if is_q else "logits"

    def _from_distribution(self, distribution: Distribution, batch_size: int) -> PolicyStep | None:
        step = self._builder.from_scores(distribution, batch_size, "distribution")
        is_single = self._builder.categorical is not None and self._builder.categorical.is_single
        if step is not None or (is_single and not is_over_integers(distribution)):
            return step
        if not self.notes and (note := override_note(distribution)) is not None:
            self.notes.add(note)
        action = action_of(distribution, deterministic=self.deterministic)
        if is_single:
            return self._builder.from_actions(as_integers(action), batch_size)
        scores = moments_of(distribution) if isinstance(self.action_space, spaces.Box) else None
        return self._builder.from_actions(action, batch_size, scores)


def _batch_size_of(actions: Any) -> int:
    if isinstance(actions, Mapping):
        return _batch_size_of(next(iter(actions.values())))
    return _batch_size_of(actions[0]) if isinstance(actions, tuple) else len(actions)
