"""Algorithms of d3rlpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.policies.adapters.devices import map_structure
from rlwandb_callbacks.policies.adapters.library_policy import has_methods, networks_in, owner_of


class D3rlpyPolicy:
    """An algorithm that predicts actions, and the values of actions, from arrays of observations.

    Its scalers of observations and actions are applied by itself. Scores are Q(s, a) for all actions if they are
    finite, else for the action that is played.

    Args:
        algorithm: The algorithm.
        deterministic: Whether to play the best action instead of a sample.
    """

    takes_arrays = True

    def __init__(self, algorithm: Any, *, deterministic: bool) -> None:
        self._algorithm = algorithm
        self._act = algorithm.predict if deterministic else algorithm.sample_action
        self._has_values = True
        modules = getattr(getattr(algorithm, "impl", None), "modules", None)
        self.networks = networks_in(vars(modules).values() if hasattr(modules, "__dict__") else ())

    @classmethod
    def of(cls, policy: Any, *, deterministic: bool) -> D3rlpyPolicy | None:
        """Returns the policy of an object that is an algorithm or one of its methods that act; else None."""
        owner = owner_of(policy, "predict", "sample_action")
        has_scalers = hasattr(owner, "observation_scaler") and hasattr(owner, "action_scaler")
        is_algorithm = has_scalers and has_methods(owner, "predict", "sample_action", "predict_value")
        return cls(owner, deterministic=deterministic) if is_algorithm else None

    def __call__(self, observations: Any, state: Any = None) -> Mapping[str, Any]:
        """Acts; see :class:`rlwandb_callbacks.policies.adapters.library_policy.LibraryPolicy`."""
        actions = np.asarray(self._act(observations))
        return {"action": actions, **self._values(observations, actions)}

    def _values(self, observations: Any, actions: NDArray[Any]) -> dict[str, Any]:
        """Returns Q(s, a); nothing for an algorithm without a critic."""
        if not self._has_values:
            return {}
        try:
            if actions.ndim > 1:
                return {"state_action_value": self._algorithm.predict_value(observations, actions)}
            count, batch_size = int(self._algorithm.action_size), len(actions)
            repeated = map_structure(lambda part: np.repeat(part, count, axis=0), observations)
            values = self._algorithm.predict_value(repeated, np.tile(np.arange(count), batch_size))
            return {"q_values": np.asarray(values).reshape(batch_size, count)}
        except NotImplementedError:  # behavior cloning
            self._has_values = False
            return {}
