"""Adapter that calls a policy with one observation at a time, and gives each environment a state of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters.devices import take_rows
from rlwandb_callbacks.policies.adapters.recurrent_state import join_steps
from rlwandb_callbacks.policies.python_state import Attribute, PythonState, reset_methods
from rlwandb_callbacks.policies.saved_values import Snapshot


class Adapter(Protocol):
    """Adapter for one kind of policies; see :mod:`rlwandb_callbacks.policies.adapters`."""

    takes_masks: bool

    @property
    def is_recurrent(self) -> bool: ...

    def act(self, observations: Any, starts: NDArray[np.bool_], masks: NDArray[np.bool_] | None) -> PolicyStep: ...


@dataclass(frozen=True)
class EpisodeState:
    """State that a policy keeps in Python attributes.

    Args:
        changed: The attributes.
        at_start: Values of some attributes when an episode starts; the others are as before the evaluation.
    """

    changed: frozenset[Attribute]
    at_start: Snapshot


class RowByRowPolicy:
    """Calls a policy once for each environment.

    For policies in whose output a row depends on other rows, and for those that keep state in Python attributes, which
    is exchanged between the calls.

    Args:
        make_adapter: Makes an adapter of the policy; each environment gets one, with its recurrent state.
        policy: The policy.
        observation_space: Observation space of one environment.
        state: State in Python attributes; None if the policy has none.
    """

    def __init__(
        self, make_adapter: Callable[[], Adapter], policy: Any, observation_space: Any, state: EpisodeState | None
    ) -> None:
        self._make_adapter, self._observation_space, self._state = make_adapter, observation_space, state
        self.takes_masks = make_adapter().takes_masks
        self._adapters: dict[int, Adapter] = {}
        self._snapshots: dict[int, Snapshot] = {}
        self._attributes: PythonState | None = None
        self._resets: list[Callable[[], Any]] = []
        if state is not None:
            attributes = PythonState.of(policy)
            self._attributes = attributes.limited_to({holder for holder, _ in state.changed})
            self._resets = reset_methods(policy, attributes, state.changed)
        self._before = None if self._attributes is None else self._attributes.capture()

    def act(self, observations: Any, starts: NDArray[np.bool_], masks: NDArray[np.bool_] | None = None) -> PolicyStep:
        """Acts in B states; see :meth:`rlwandb_callbacks.policies.adapters.callables.CallablePolicy.act`."""
        steps = []
        for row in range(starts.size):
            if row not in self._adapters:
                self._adapters[row] = self._make_adapter()
            observation = take_rows(observations, [row], self._observation_space)
            self._enter(row, starts=bool(starts[row]))
            steps.append(self._adapters[row].act(observation, starts[[row]], None if masks is None else masks[[row]]))
            if self._attributes is not None:
                self._snapshots[row] = self._attributes.capture()
        return join_steps(steps)

    def restore(self) -> None:
        """Puts back the attributes that are state, also lists that have only grown."""
        if self._before is not None:
            self._before.restore()

    def _enter(self, row: int, *, starts: bool) -> None:
        """Gives the policy the state of an environment."""
        if self._state is None or self._before is None:
            return
        if not starts:
            self._snapshots[row].restore()
            return
        self._before.restore()
        self._state.at_start.restore()
        for reset in self._resets:
            reset()
