"""Asks a policy several times, each time from the same state."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters.devices import batch_size_of, take_rows
from rlwandb_callbacks.policies.adapters.row_by_row import Adapter
from rlwandb_callbacks.policies.probing import moved_slightly, noise_batches, seed_all
from rlwandb_callbacks.policies.python_state import PythonState
from rlwandb_callbacks.policies.step_comparison import fields_of

RELATIVE_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 5e-2}  # 1e-5 for others
OBSERVATION_CHANGE = 1e-6  # at least; a few times the rounding of float32
NOISE_SECONDS = 1.0
ASKS_PER_NOISE_BATCH = 11
Starts: TypeAlias = list[NDArray[np.bool_]]


class Questions:
    """Asks a policy with batches of one size, so that equal rows give equal numbers up to rounding.

    Each question begins with the same random states, Python attributes and buffers.

    Args:
        policy: The policy.
        make_adapter: Makes a new adapter of it; the argument is ``reads_std``.
        observations: Batch of B ≥ 1 observations; rows that differ show more.
        observation_space: Observation space of one environment.
        masks: Valid actions ``[B, A]`` for a policy that takes masks.
        like: Parameter with the device and dtype of the policy.

    Attributes:
        batch_size: B.
        attributes: Python attributes of the policy.
        fresh: Their values at the beginning of each question.
        is_recurrent: Whether the adapter that was asked last keeps a recurrent state.
        rotated: The observations in another order.
        tolerance: Relative rounding of the policy's dtype.
    """

    def __init__(
        self,
        policy: Any,
        make_adapter: Callable[[bool], Adapter],
        observations: Any,
        *,
        observation_space: Any,
        masks: NDArray[np.bool_] | None,
        like: torch.Tensor,
    ) -> None:
        self.policy, self.make_adapter = policy, make_adapter
        self.observations, self.observation_space = observations, observation_space
        self.batch_size = batch_size_of(observations, observation_space)
        self.masks, self.device = masks, like.device
        self.attributes = PythonState.of(policy)
        self.fresh = self.attributes.capture()
        self.is_recurrent = False
        self.rotated = self.rows(observations, [*range(1, self.batch_size), 0])
        self.tolerance = RELATIVE_TOLERANCE.get(like.dtype, 1e-5)
        self._seconds_per_batch = math.inf

    def ask(
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
            batches: Batches of B observations; by default the observations once.
            seed: Seed of the random states before the first batch.
            starts: Rows in which episodes start in each batch; by default all.
            masks: Valid actions; by default those of the observations.
            reads_std: As in the reader.
            continues: Keep the Python attributes as the last question left them.
        """
        batches = batches or (self.observations,)
        self.fresh.restore(only_buffers=continues)
        adapter, steps = self.make_adapter(reads_std), []
        began = time.perf_counter()
        for index, batch in enumerate(batches):
            starting = self.all_start() if starts is None else starts[index]
            seed_all(seed + index, [self.device])
            steps.append(adapter.act(batch, starting, self.masks if masks is None else masks))
            self.is_recurrent = adapter.is_recurrent
        self._seconds_per_batch = min(self._seconds_per_batch, (time.perf_counter() - began) / len(batches))
        return steps

    def ask_moved(self, batches: list[Any], starts: Starts) -> list[PolicyStep]:
        """Asks with slightly other observations, as some outputs magnify rounding; empty if the policy fails then."""
        relative = max(OBSERVATION_CHANGE, self.tolerance / 10)
        with contextlib.suppress(Exception):  # such observations may not occur
            return self.ask(*(moved_slightly(batch, relative) for batch in batches), starts=starts)
        return []

    def ask_for_one(self) -> PolicyStep:
        """Returns the output for the first observation alone."""
        masks = None if self.masks is None else self.masks[:1]
        return self.make_adapter(False).act(self.rows(self.observations, [0]), np.ones(1, dtype=np.bool_), masks)

    def all_start(self) -> NDArray[np.bool_]:
        """Returns that an episode starts in each row."""
        return np.ones(self.batch_size, dtype=np.bool_)

    def rows(self, batch: Any, rows: list[int]) -> Any:
        """Returns a batch of some rows of another one."""
        return take_rows(batch, rows, self.observation_space)

    def with_noise(
        self, batches: list[Any], starts: Starts | None = None
    ) -> tuple[list[Any], Starts, list[PolicyStep]]:
        """Adds batches of noise, as rows of observations may be equal, and so may a few integers.

        Returns them with the rows in which episodes start and the outputs; without noise if the policy fails on it.
        """
        starts = [self.all_start()] * len(batches) if starts is None else starts
        steps = self.ask(*batches, starts=starts)
        noise = self.noise(wide=fields_of(steps[0]).keys() == {"action0"} and steps[0].actions.dtype.kind in "iu")
        if noise:
            with contextlib.suppress(Exception):  # such observations may not occur
                more = [*starts, *starts[-1:] * len(noise)]
                steps = self.ask(*batches, *noise, starts=more)
                batches, starts = [*batches, *noise], more
        return batches, starts, steps

    def noise(self, *, wide: bool, at_least: int = 0) -> list[Any]:
        """Returns as many batches of noise as a slow policy can be asked with in a given time."""
        count = max(at_least, int(NOISE_SECONDS / (ASKS_PER_NOISE_BATCH * self._seconds_per_batch)))
        return noise_batches(self.observations, in_range=self.device.type != "cpu", wide=wide)[:count]
