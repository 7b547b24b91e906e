"""Adapter for callables, recurrent or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters.devices import (
    evaluating,
    first_float_parameter,
    network_of,
    take_rows,
    to_tensors,
)
from rlwandb_callbacks.policies.adapters.recurrent_state import StateParameter, insert_state, insert_step, split_state
from rlwandb_callbacks.policies.output_reader import OutputReader


class CallablePolicy:
    """Adapter that calls a policy with tensors, and carries the state of a recurrent one.

    The tensors are on the device of the policy's own network, else of the module. If some episodes start while others
    continue, the policy is called once more, without a state, for the rows that start. The first state of an episode is
    thus the one that the policy creates itself, zeros or learned.
    """

    takes_masks = False

    def __init__(
        self, policy: Callable[..., Any], module: nn.Module, reader: OutputReader, observation_space: Any = None
    ) -> None:
        self._policy = policy
        self._network = network_of(policy)
        self._module = module
        self._reader = reader
        self._observation_space = observation_space
        self._parameter = StateParameter.of(policy)
        self._state: Any = None

    @property
    def is_recurrent(self) -> bool:
        """Whether the last output contained a state."""
        return self._state is not None

    def act(self, observations: Any, starts: NDArray[np.bool_], masks: NDArray[np.bool_] | None = None) -> PolicyStep:
        """Acts in B states, as ``gymnasium.vector`` builds their batch.

        Args:
            observations: The batch.
            starts: Shape ``[B]``: rows in which an episode starts.
            masks: Shape ``[B, A]``: valid actions, for a policy that takes masks; None if all are valid.
        """
        batch = self._inputs(observations)
        with evaluating(self._network):
            carried = None if starts.all() else self._state
            step, self._state = self._step(batch, starts.size, carried)
            if carried is not None and starts.any():
                rows = np.flatnonzero(starts).tolist()
                fresh_step, fresh = self._step(take_rows(batch, rows, self._observation_space), len(rows), None)
                step, self._state = insert_step(starts, fresh_step, step), insert_state(starts, fresh, self._state)
            return step

    def _inputs(self, observations: Any) -> Any:
        return to_tensors(observations, first_float_parameter(self._network, self._module))

    def _step(self, batch: Any, batch_size: int, state: Any) -> tuple[PolicyStep, Any]:
        parameter = self._parameter
        output = self._policy(batch) if parameter is None else parameter.call(self._policy, batch, state)
        output, next_state = split_state(output, parameter)
        return self._reader.read(output, batch_size), next_state
