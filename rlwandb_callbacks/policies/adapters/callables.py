"""Any callable as a policy, with memory or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters.devices import evaluating, network_of, parameter_like, to_tensors
from rlwandb_callbacks.policies.adapters.recurrent_state import StateParameter, merged, split_answer, with_rows_begun
from rlwandb_callbacks.policies.output_reader import OutputReader


class CallablePolicy:
    """Calls a policy with tensors, and keeps the state of one that has memory.

    A step at which some episodes begin and others go on is asked for twice, from a fresh start and from the state that
    is kept, and each row is taken from the answer that is its own. So the first state of an episode is whatever the
    policy makes of a call without one, be it zeros or learned.

    Args:
        policy: Called with tensors on the device of its own network, else of the module.
        module: The LightningModule.
        reader: Reads the answers.
    """

    takes_masks = False

    def __init__(self, policy: Callable[..., Any], module: nn.Module, reader: OutputReader) -> None:
        self._policy = policy
        self._network = network_of(policy)
        self._module = module
        self._reader = reader
        self._parameter = StateParameter.of(policy)
        self._state: Any = None

    @property
    def has_memory(self) -> bool:
        """Whether the last answer held a state."""
        return self._state is not None

    def act(self, observations: Any, begins: NDArray[np.bool_], masks: NDArray[np.bool_] | None = None) -> PolicyStep:
        """Acts in B states; see :class:`rlwandb_callbacks.policies.adapters.Adapter`."""
        count = begins.size
        batch = to_tensors(observations, parameter_like(self._network, self._module))
        with evaluating(self._network):
            if self._state is None or begins.all():
                step, self._state = self._ask(batch, count, None)
                return step
            step, state = self._ask(batch, count, self._state)
            if begins.any():
                fresh_step, fresh = self._ask(batch, count, None)
                _, of_twice_as_many = split_answer(self._call(_doubled(batch), None), self._parameter)
                step, state = with_rows_begun(begins, fresh_step, step), merged(begins, fresh, state, of_twice_as_many)
            self._state = state
            return step

    def _ask(self, batch: Any, count: int, state: Any) -> tuple[PolicyStep, Any]:
        answer, next_state = split_answer(self._call(batch, state), self._parameter)
        return self._reader.read(answer, count), next_state

    def _call(self, batch: Any, state: Any) -> Any:
        return self._policy(batch) if self._parameter is None else self._parameter.call(self._policy, batch, state)


def _doubled(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: _doubled(value) for key, value in batch.items()}
    if isinstance(batch, torch.Tensor):
        return torch.cat([batch, batch])
    if isinstance(batch, tuple) and not isinstance(batch[0], str):
        return tuple(map(_doubled, batch))
    return np.concatenate([batch, batch]) if isinstance(batch, np.ndarray) else (*batch, *batch)
