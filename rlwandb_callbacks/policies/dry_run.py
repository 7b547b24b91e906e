"""Finds out before training how a policy must be called, by asking it several times with the same observations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from rlwandb_callbacks.core.episode import Gaussian, PolicyStep
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.adapters.row_by_row import EpisodeState, RowByRowPolicy
from rlwandb_callbacks.policies.dry_run_messages import (
    HIDDEN_STATE,
    NO_RESET,
    ROWS_ARE_MIXED,
    SAMPLES_BY_ITSELF,
    STATE_PROTOCOL,
    STATISTICS_MIX_ROWS,
    UNREPEATABLE,
)
from rlwandb_callbacks.policies.output_tuples import NO_ROLES, TupleRoles
from rlwandb_callbacks.policies.probing import NOISE_SCALES
from rlwandb_callbacks.policies.python_state import (
    Attribute,
    Fingerprints,
    attribute_names,
    changed_attributes,
    have_same_form,
    reset_methods,
)
from rlwandb_callbacks.policies.questions import Questions
from rlwandb_callbacks.policies.row_mixing import row_mixing
from rlwandb_callbacks.policies.step_comparison import Comparison, fields_of
from rlwandb_callbacks.policies.tuple_roles import tuple_roles

OTHER_SEEDS = range(100, 105)  # several, as two samples of a few discrete actions may be equal


@dataclass(frozen=True)
class PolicyTraits:
    """How a policy must be called.

    Args:
        row_by_row: Call it once per environment.
        state: State that it keeps in Python attributes and that affects its output; None if there is none.
        reads_std: The second entry of its tuples is a standard deviation.
        reads_value: Entries of its tuples that have the shape of V(s) are no log-probabilities of samples.
        roles: Entries of its tuples that begin with a sample of the actions.
        warnings: What users should know: kind and message.
    """

    row_by_row: bool = False
    state: EpisodeState | None = None
    reads_std: bool = False
    reads_value: bool = True
    roles: TupleRoles = NO_ROLES
    warnings: tuple[tuple[str, str], ...] = ()


class DryRun:
    """Finds out how a policy must be called.

    Args:
        questions: Asks the policy.
        action_space: Action space of one environment; None if several agents act.
        num_rows: Environments that are played together.
        staggered: Whether episodes will start while others continue.
        deterministic: ``evaluation.deterministic``.
        last_output: Returns the output of the policy that was read last.
    """

    def __init__(
        self,
        questions: Questions,
        action_space: Space[Any] | None,
        *,
        num_rows: int,
        staggered: bool,
        deterministic: bool,
        last_output: Callable[[], Any] = lambda: None,
    ) -> None:
        self._questions, self._action_space = questions, action_space
        self._num_rows, self._staggered, self._deterministic = num_rows, staggered, deterministic
        self._comparison = Comparison(questions.tolerance)
        self._stable: set[str] = set()  # fields that do not depend on random numbers
        self._changed: set[Attribute] = set()  # attributes that acting changes
        self._reads_value, self._roles, self._last_output = True, NO_ROLES, last_output
        self._warnings: dict[str, str] = {}

    def run(self) -> PolicyTraits:
        """Returns how the policy must be called; its attributes are as before.

        Raises:
            PolicyError: If it returns an output that cannot be read, or keeps state that cannot be put back.
        """
        before = self._questions.fresh
        try:
            state = self._find_state()
            row_by_row = state is not None or (self._num_rows > 1 and self._mixes_rows())
            if row_by_row:
                self._require_single_rows(state)
            reads_std = self._reads_std()
        finally:
            before.restore()
        return PolicyTraits(row_by_row, state, reads_std, self._reads_value, self._roles, tuple(self._warnings.items()))

    def _find_state(self) -> EpisodeState | None:
        """Asks whether Python attributes affect the output, and whether the policy samples by itself."""
        attributes = self._questions.attributes
        before = attributes.fingerprints()
        try:
            first = self._questions.ask()[0]
        except Exception as error:
            changed = changed_attributes(before, attributes.fingerprints())
            if not changed:
                raise
            resets = reset_methods(self._questions.policy, attributes, changed)
            if not resets:
                raise PolicyError(
                    f"{_describe(error)} The policy keeps state in {attribute_names(changed)}. {STATE_PROTOCOL}"
                ) from error
            self._questions.fresh.restore()
            for reset in resets:  # the state may be that of a rollout with another number of environments
                reset()
            self._questions.fresh, before = attributes.capture(), attributes.fingerprints()
            first = self._questions.ask()[0]
        after = attributes.fingerprints()
        if not self._comparison.are_equal(first, self._questions.ask()[0]):
            self._report_unrepeatable(first)
            return None
        changed = self._changed = changed_attributes(before, after)
        self._stable = self._fields_without_draws()
        if not changed:  # a random generator in an attribute is not a change
            again = self._questions.ask(continues=True)[0]
            self._stable &= self._comparison.equal_fields(first, again)
        self._reads_value = self._is_value(first)
        actions = {name for name in fields_of(first) if name.startswith("action")}
        if not actions <= self._stable:
            self._read_sampled_tuples()
        if not changed:
            return None
        self._questions.ask()
        continued = self._questions.ask(self._questions.rotated, continues=True)[0]
        if self._comparison.are_equal(continued, self._questions.ask(self._questions.rotated)[0]):
            return None
        return self._episode_state(changed, before, after)

    def _read_sampled_tuples(self) -> None:
        """Looks for the most likely action beside the samples of a policy that samples by itself; else warns."""
        if self._action_space is not None:
            self._questions.ask()
            self._roles = tuple_roles(self._questions, self._last_output, self._action_space)
        if self._roles.mean is None:
            self._report_samples(SAMPLES_BY_ITSELF)

    def _fields_without_draws(self) -> set[str]:
        """Returns the fields of the output that do not depend on random numbers."""
        batches, starts, first = self._questions.with_noise([self._questions.observations])
        stable = set(fields_of(first[0]))
        for seed in OTHER_SEEDS:
            others = self._questions.ask(*batches, starts=starts, seed=seed)
            for ours, theirs in zip(first, others, strict=True):
                # Moments and frequencies may be estimated from samples, which agree up to the tolerance of bfloat16.
                estimated = {name for name in stable if name.startswith(("mean", "std", "score"))}
                stable &= self._comparison.equal_fields(ours, theirs)
                stable -= estimated - Comparison(0.0).equal_fields(ours, theirs)
        return stable

    def _is_value(self, step: PolicyStep) -> bool:
        """Returns whether a number per state is V(s), which does not change with the sample as its log-probability.

        In a network with noisy layers the scores change too.
        """
        fields = fields_of(step).keys()
        scores = {name for name in fields if name.startswith("score")}
        has_noisy_layers = bool(scores) and not scores & self._stable
        return self._action_space is None or "values" not in fields - self._stable or has_noisy_layers

    def _report_samples(self, message: str) -> None:
        if self._deterministic:
            self._warnings["policy samples"] = message

    def _episode_state(self, changed: set[Attribute], before: Fingerprints, after: Fingerprints) -> EpisodeState:
        of_episode = {each for each in changed if not have_same_form(before.get(each), after.get(each))}
        holders = {holder for holder, _ in of_episode}
        of_episode |= {each for each in changed if each[0] in holders and isinstance(after.get(each), int | float)}
        attributes = self._questions.attributes
        if not reset_methods(self._questions.policy, attributes, changed):
            start = "the state at the start of the training" if of_episode else "the state before the evaluation"
            self._warnings["policy state"] = NO_RESET.format(attributes=attribute_names(changed), start=start)
        self._questions.fresh.restore()
        return EpisodeState(frozenset(changed), attributes.capture_attributes(of_episode))

    def _report_unrepeatable(self, first: PolicyStep) -> None:
        """Raises if the output does not follow the number of observations, as that of a queue; else warns."""
        if self._questions.batch_size > 1:
            try:
                self._questions.ask_for_one()
            except Exception as error:
                raise PolicyError(f"{HIDDEN_STATE} Asked for one action, it gave: {_describe(error)}") from error
        self._reads_value = self._is_value(first)
        self._report_samples(UNREPEATABLE)

    def _mixes_rows(self) -> bool:
        warning = row_mixing(self._questions, self._stable, staggered=self._staggered)
        if warning == ROWS_ARE_MIXED and self._changed:
            warning = STATISTICS_MIX_ROWS.format(attributes=attribute_names(self._changed))
        if warning is not None:
            self._warnings["policy rows"] = warning
        return warning is not None

    def _require_single_rows(self, state: EpisodeState | None) -> None:
        """Raises if the policy cannot be called with a batch of one."""
        questions = self._questions
        questions.fresh.restore()
        single = RowByRowPolicy(
            lambda: questions.make_adapter(False), questions.policy, questions.observation_space, state
        )
        all_start = questions.all_start()
        try:
            single.act(questions.observations, all_start, questions.masks)
            single.act(questions.rotated, ~all_start, questions.masks)
        except Exception as error:
            reason = self._warnings.get("policy rows", "The policy keeps state between calls.")
            raise PolicyError(f"{reason} It failed on a batch of one: {_describe(error)} {STATE_PROTOCOL}") from error

    def _reads_std(self) -> bool:
        """Asks whether tuples begin with the mean and the standard deviation of a Gaussian.

        A mean is not a sample, and a standard deviation is not negative, whatever the observations. For actions of one
        dimension this is what distinguishes it from V(s), so that unusual observations are tried too, on the CPU.
        """
        space = self._action_space
        if not isinstance(space, spaces.Box):
            return False
        steps = self._questions.ask(reads_std=True)
        if not isinstance(steps[0].scores, Gaussian) or self._questions.ask()[0].scores is not None:
            return False
        again = self._questions.ask(reads_std=True, seed=OTHER_SEEDS[0])[0]
        if not isinstance(again.scores, Gaussian) or not np.array_equal(again.scores.mean, steps[0].scores.mean):
            return False
        self._reads_value &= "values" in self._comparison.equal_fields(steps[0], again) or again.values is None
        noise = self._questions.noise(wide=True, at_least=len(NOISE_SCALES))
        try:
            steps += self._questions.ask(self._questions.rotated, *noise, reads_std=True)
        except Exception:  # noqa: BLE001  # such observations do not occur
            noise = []
        if math.prod(space.shape) == 1 and (not noise or self._questions.device.type != "cpu"):
            return False
        return all(isinstance(step.scores, Gaussian) and bool(np.all(step.scores.std >= 0)) for step in steps)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, PolicyError) else f"{type(error).__name__}: {str(error).rstrip('.')}."
