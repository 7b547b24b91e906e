"""Finds out before training how a policy must be called, by asking it several times with the same observations.

All questions have batches of one size, so that equal rows give equal numbers up to rounding, and each begins with the
same random states, Python attributes and buffers.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Gaussian, PolicyStep
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.adapters.devices import take_rows
from rlwandb_callbacks.policies.adapters.recurrent_state import StateShapeError
from rlwandb_callbacks.policies.adapters.row_by_row import EpisodeState, RowByRowPolicy
from rlwandb_callbacks.policies.dry_run_messages import (
    HIDDEN_STATE,
    NO_RESET,
    ROWS_ARE_MIXED,
    SAMPLES_BY_ITSELF,
    STATE_HAS_NO_ROWS,
    STATE_PROTOCOL,
    UNREPEATABLE,
)
from rlwandb_callbacks.policies.probing import NOISE_SCALES, moved_slightly, noise_batches, seed_all
from rlwandb_callbacks.policies.python_state import (
    Attribute,
    Fingerprints,
    PythonState,
    attribute_names,
    changed_attributes,
    have_same_form,
    reset_methods,
)
from rlwandb_callbacks.policies.step_comparison import (
    are_equal,
    changes_in_row,
    differ_on_average,
    equal_fields,
    fields_of,
    have_equal_rows,
)

STEPS_OF_RECURRENT = 3
OTHER_SEEDS = range(100, 105)  # several, as two samples of a few discrete actions may be equal
DRAWS = 64
RELATIVE_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 5e-2}  # 1e-5 for others
TOLERANCE_BETWEEN_ROWS = 1e-4  # at least; products of matrices round each row in another order
OBSERVATION_CHANGE = 1e-6  # at least; a few times the rounding of float32
SLACK_FOR_ROUNDING = 10.0  # times the change of the output at that change of the observations
NOISE_SECONDS = 1.0
ASKS_PER_NOISE_BATCH = 13
Starts: TypeAlias = list[NDArray[np.bool_]]


class Adapter(Protocol):
    """Adapter for one kind of policies; see :mod:`rlwandb_callbacks.policies.adapters`."""

    takes_masks: bool

    @property
    def is_recurrent(self) -> bool: ...

    def act(self, observations: Any, starts: NDArray[np.bool_], masks: NDArray[np.bool_] | None) -> PolicyStep: ...


@dataclass(frozen=True)
class PolicyTraits:
    """How a policy must be called.

    Args:
        row_by_row: Call it once per environment.
        state: State that it keeps in Python attributes and that affects its output; None if there is none.
        reads_std: The second entry of its tuples is a standard deviation.
        reads_value: Entries of its tuples that have the shape of V(s) are no log-probabilities of samples.
        warnings: What users should know: kind and message.
    """

    row_by_row: bool = False
    state: EpisodeState | None = None
    reads_std: bool = False
    reads_value: bool = True
    warnings: tuple[tuple[str, str], ...] = ()


@dataclass
class DryRun:
    """Asks a policy.

    Args:
        policy: The policy.
        make_adapter: Makes a new adapter of it; the argument is ``reads_std``.
        observations: Batch of B ≥ 1 observations; rows that differ show more.
        batch_size: B.
        observation_space: Observation space of one environment.
        action_space: Action space of one environment; None if several agents act.
        masks: Valid actions ``[B, A]`` for a policy that takes masks.
        num_rows: Environments that are played together.
        staggered: Whether episodes will start while others continue.
        deterministic: ``evaluation.deterministic``.
        like: Parameter with the device and dtype of the policy.
    """

    policy: Any
    make_adapter: Callable[[bool], Adapter]
    observations: Any
    batch_size: int
    observation_space: Any
    action_space: Space[Any] | None
    masks: NDArray[np.bool_] | None
    num_rows: int
    staggered: bool
    deterministic: bool
    like: torch.Tensor
    _warnings: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._attributes = PythonState.of(self.policy)
        self._fresh = self._attributes.capture()
        self._is_recurrent = False
        self._seconds_per_batch = math.inf
        self._reads_value = True
        everything = range(self.batch_size)
        self._rotated = self._rows(self.observations, [*everything[1:], 0])

    def run(self) -> PolicyTraits:
        """Returns how the policy must be called; its attributes are as before.

        Raises:
            PolicyError: If it returns an output that cannot be read, or keeps state that cannot be put back.
        """
        before = self._fresh
        try:
            state = self._find_state()
            row_by_row = state is not None or (self.num_rows > 1 and self._mixes_rows())
            if row_by_row:
                self._require_single_rows(state)
            reads_std = self._reads_std()
        finally:
            before.restore()
        return PolicyTraits(row_by_row, state, reads_std, self._reads_value, tuple(self._warnings.items()))

    def _ask(
        self,
        *batches: Any,
        seed: int = 0,
        starts: Starts | None = None,
        masks: NDArray[np.bool_] | None = None,
        reads_std: bool = False,
        continues: bool = False,
    ) -> list[PolicyStep]:
        """Returns the outputs of a new adapter for some batches in turn.

        Args:
            batches: Batches of B observations.
            seed: Seed of the random states before the first batch.
            starts: Rows in which episodes start in each batch; by default all.
            masks: Valid actions; by default those of the observations.
            reads_std: As in the reader.
            continues: Keep the Python attributes as the last question left them.
        """
        self._fresh.restore(only_buffers=continues)
        adapter, steps = self.make_adapter(reads_std), []
        began = time.perf_counter()
        for index, batch in enumerate(batches):
            starting = np.ones(self.batch_size, dtype=np.bool_) if starts is None else starts[index]
            seed_all(seed + index, self.like.device)
            steps.append(adapter.act(batch, starting, self.masks if masks is None else masks))
            self._is_recurrent = adapter.is_recurrent
        self._seconds_per_batch = min(self._seconds_per_batch, (time.perf_counter() - began) / len(batches))
        return steps

    def _rows(self, batch: Any, rows: list[int]) -> Any:
        return take_rows(batch, rows, self.observation_space)

    def _find_state(self) -> EpisodeState | None:
        """Asks whether Python attributes affect the output, and whether the policy samples by itself."""
        before = self._attributes.fingerprints()
        try:
            first = self._ask(self.observations)[0]
        except Exception as error:
            changed = changed_attributes(before, self._attributes.fingerprints())
            if not changed:
                raise
            resets = reset_methods(self.policy, changed)
            if not resets:
                raise PolicyError(
                    f"{_describe(error)} The policy keeps state in {attribute_names(changed)}. {STATE_PROTOCOL}"
                ) from error
            self._fresh.restore()
            for reset in resets:  # the state may be that of a rollout with another number of environments
                reset()
            self._fresh, before = self._attributes.capture(), self._attributes.fingerprints()
            first = self._ask(self.observations)[0]
        after = self._attributes.fingerprints()
        if not are_equal(first, self._ask(self.observations)[0], self._tolerance):
            self._report_unrepeatable(first)
            return None
        changed = changed_attributes(before, after)
        self._stable = self._fields_without_draws(*self._with_noise([self.observations]))
        if not changed:  # a random generator in an attribute is not a change
            again = self._ask(self.observations, continues=True)[0]
            self._stable &= equal_fields(first, again, self._tolerance)
        self._reads_value = self._is_value(first)
        actions = {name for name in fields_of(first) if name.startswith("action")}
        if not actions <= self._stable:
            self._report_samples(SAMPLES_BY_ITSELF)
        if not changed:
            return None
        self._ask(self.observations)
        continued = self._ask(self._rotated, continues=True)[0]
        if are_equal(continued, self._ask(self._rotated)[0], self._tolerance):
            return None
        return self._episode_state(changed, before, after)

    def _with_noise(self, batches: list[Any], starts: Starts | None = None) -> tuple[list[Any], Starts]:
        """Adds batches of noise, as rows of observations may be equal, and so may a few integers.

        Returns them with the rows in which episodes start; without noise if the policy fails on it.
        """
        starts = [np.ones(self.batch_size, dtype=np.bool_)] * len(batches) if starts is None else starts
        step = self._ask(*batches, starts=starts)[0]
        noise = self._noise(wide=fields_of(step).keys() == {"action0"} and step.actions.dtype.kind in "iu")
        if not noise:
            return batches, starts
        with contextlib.suppress(Exception):  # such observations may not occur
            more = [*starts, *starts[-1:] * len(noise)]
            self._ask(*batches, *noise, starts=more)
            return [*batches, *noise], more
        return batches, starts

    def _fields_without_draws(self, batches: list[Any], starts: Starts) -> set[str]:
        """Returns the fields of the output that do not depend on random numbers."""
        first = self._ask(*batches, starts=starts)
        stable = set(fields_of(first[0]))
        for seed in OTHER_SEEDS:
            others = self._ask(*batches, starts=starts, seed=seed)
            for ours, theirs in zip(first, others, strict=True):
                # Moments and frequencies may be estimated from samples, which agree up to the tolerance of bfloat16.
                estimated = {name for name in stable if name.startswith(("mean", "std", "score"))}
                stable &= equal_fields(ours, theirs, self._tolerance)
                stable -= estimated - equal_fields(ours, theirs, 0.0)
        return stable

    def _is_value(self, step: PolicyStep) -> bool:
        """Returns whether a number per state is V(s), which does not change with the sample as its log-probability.

        In a network with noisy layers the scores change too.
        """
        fields = fields_of(step).keys()
        scores = {name for name in fields if name.startswith("score")}
        has_noisy_layers = bool(scores) and not scores & self._stable
        return self.action_space is None or "values" not in fields - self._stable or has_noisy_layers

    def _report_samples(self, message: str) -> None:
        if self.deterministic:
            self._warnings["policy samples"] = message

    @property
    def _tolerance(self) -> float:
        return RELATIVE_TOLERANCE.get(self.like.dtype, 1e-5)

    def _episode_state(self, changed: set[Attribute], before: Fingerprints, after: Fingerprints) -> EpisodeState:
        of_episode = {each for each in changed if not have_same_form(before.get(each), after.get(each))}
        numbers = {each for each in changed if isinstance(after.get(each), int | float)}
        if of_episode:
            of_episode |= {each for each in numbers if each[0] in {holder for holder, _ in of_episode}}
        if not reset_methods(self.policy, changed):
            start = "the state at the start of the training" if of_episode else "the state before the evaluation"
            self._warnings["policy state"] = NO_RESET.format(attributes=attribute_names(changed), start=start)
        self._fresh.restore()
        return EpisodeState(self.policy, frozenset(changed), self._attributes.capture_attributes(of_episode))

    def _report_unrepeatable(self, first: PolicyStep) -> None:
        """Raises if the output does not follow the number of observations, as that of a queue; else warns."""
        if self.batch_size > 1:
            masks = None if self.masks is None else self.masks[:1]
            try:
                self.make_adapter(False).act(self._rows(self.observations, [0]), np.ones(1, dtype=np.bool_), masks)
            except Exception as error:
                raise PolicyError(f"{HIDDEN_STATE} Asked for one action, it gave: {_describe(error)}") from error
        self._stable = set()
        self._reads_value = self._is_value(first)
        self._report_samples(UNREPEATABLE)

    def _mixes_rows(self) -> bool:
        """Asks whether a row of the output depends on other rows: each row among others, and among copies of itself."""
        if self.batch_size == 1:
            return False
        count = STEPS_OF_RECURRENT if self._is_recurrent else 1
        batches = [self.observations, self._rotated, self.observations][:count]
        none = np.zeros(self.batch_size, dtype=np.bool_)
        first_row = (np.arange(self.batch_size) == 0) & self.staggered
        starts = [~none, first_row, none][:count]
        try:
            if self._differs_among_others(batches, starts):
                self._warnings["policy rows"] = ROWS_ARE_MIXED
        except StateShapeError as error:
            self._warnings["policy rows"] = STATE_HAS_NO_ROWS.format(reason=error)
        return "policy rows" in self._warnings

    def _differs_among_others(self, batches: list[Any], starts: Starts) -> bool:
        batches, starts = self._with_noise(batches, starts)
        together = self._ask(*batches, starts=starts)
        moved = self._ask_moved(batches, starts) or together
        for row in {self.batch_size - 1, self.batch_size // 2, 0}:
            rows = [row] * self.batch_size
            copies = [self._rows(batch, rows) for batch in batches]
            of_row = [np.full(self.batch_size, starting[row]) for starting in starts]
            masks = None if self.masks is None else self.masks[rows]
            apart = self._ask(*copies, starts=of_row, masks=masks)
            if self._is_mixed(together, apart, moved, row) and (
                self._stable or self._differs_on_average(copies[0], row)
            ):
                return True
        return False

    def _ask_moved(self, batches: list[Any], starts: Starts) -> list[PolicyStep]:
        """Asks with slightly other observations, as some outputs magnify rounding; empty if the policy fails then."""
        relative = max(OBSERVATION_CHANGE, self._tolerance / 10)
        with contextlib.suppress(Exception):  # such observations may not occur
            return self._ask(*(moved_slightly(batch, relative) for batch in batches), starts=starts)
        return []

    def _is_mixed(self, together: list[PolicyStep], apart: list[PolicyStep], moved: list[PolicyStep], row: int) -> bool:
        tolerance = max(TOLERANCE_BETWEEN_ROWS, self._tolerance)
        names, estimated = fields_of(together[0]).keys(), set[str]()
        if "mean" in names - self._stable:  # the action may be an average of samples too, with other noise in each row
            estimated = {name for name in names if name.startswith("action")}
        for ours, theirs, changed in zip(together, apart, moved, strict=True):
            slack = {name: SLACK_FOR_ROUNDING * size for name, size in changes_in_row(ours, changed, row).items()}
            if not are_equal(ours, theirs, tolerance, row=row, among=self._stable, slack=slack):
                return True
            if not have_equal_rows(theirs, tolerance, among=self._stable - estimated, slack=slack):
                return True
        return False

    def _differs_on_average(self, copies: Any, row: int) -> bool:
        """Asks a policy that samples often, as the samples of a row may depend on how many numbers others drew."""
        ours, theirs = (
            [self._ask(batch, seed=seed)[0] for seed in range(DRAWS)] for batch in (self.observations, copies)
        )
        return differ_on_average(ours, theirs, row)

    def _require_single_rows(self, state: EpisodeState | None) -> None:
        """Raises if the policy cannot be called with a batch of one."""
        self._fresh.restore()
        single = RowByRowPolicy(lambda: self.make_adapter(False), self.observation_space, state)
        try:
            single.act(self.observations, np.ones(self.batch_size, dtype=np.bool_), self.masks)
            single.act(self._rotated, np.zeros(self.batch_size, dtype=np.bool_), self.masks)
        except Exception as error:
            reason = self._warnings.get("policy rows", "The policy keeps state between calls.")
            raise PolicyError(f"{reason} It failed on a batch of one: {_describe(error)} {STATE_PROTOCOL}") from error

    def _noise(self, *, wide: bool, at_least: int = 0) -> list[Any]:
        """Returns as many batches of noise as a slow policy can be asked with in a given time."""
        count = max(at_least, int(NOISE_SECONDS / (ASKS_PER_NOISE_BATCH * self._seconds_per_batch)))
        return noise_batches(self.observations, in_range=self.like.device.type != "cpu", wide=wide)[:count]

    def _reads_std(self) -> bool:
        """Asks whether tuples begin with the mean and the standard deviation of a Gaussian.

        A mean is not a sample, and a standard deviation is not negative, whatever the observations. For actions of one
        dimension this is what distinguishes it from V(s), so that unusual observations are tried too, on the CPU.
        """
        space = self.action_space
        if not isinstance(space, spaces.Box):
            return False
        steps = self._ask(self.observations, reads_std=True)
        if not isinstance(steps[0].scores, Gaussian) or self._ask(self.observations)[0].scores is not None:
            return False
        again = self._ask(self.observations, reads_std=True, seed=OTHER_SEEDS[0])[0]
        if not isinstance(again.scores, Gaussian) or not np.array_equal(again.scores.mean, steps[0].scores.mean):
            return False
        self._reads_value &= "values" in equal_fields(steps[0], again, self._tolerance) or again.values is None
        noise = self._noise(wide=True, at_least=len(NOISE_SCALES))
        try:
            steps += self._ask(self._rotated, *noise, reads_std=True)
        except Exception:  # noqa: BLE001  # such observations do not occur
            noise = []
        if math.prod(space.shape) == 1 and (not noise or self.like.device.type != "cpu"):
            return False
        return all(isinstance(step.scores, Gaussian) and bool(np.all(step.scores.std >= 0)) for step in steps)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, PolicyError) else f"{type(error).__name__}: {str(error).rstrip('.')}."
