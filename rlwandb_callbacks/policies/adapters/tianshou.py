"""Policies and algorithms of Tianshou."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn
from torch.distributions import Distribution, Independent, Normal

from rlwandb_callbacks.policies.adapters.library_policy import (
    has_methods,
    has_no_forward,
    networks_in,
    owner_of,
    replaced_attributes,
    scaled_normal,
)
from rlwandb_callbacks.policies.output_tensors import to_numpy


class TianshouPolicy:
    """A policy that takes a ``Batch``, and whose actions ``map_action`` maps to the bounds of the action space.

    Scores are q-values, or the distribution of the mapped action. V(s) is that of the critic of an on-policy algorithm.

    Args:
        policy: The policy.
        algorithm: The algorithm that it belongs to, if that was given.
        deterministic: Whether to play the mode of the policy's distribution instead of a sample.
    """

    takes_arrays = True

    def __init__(self, policy: Any, algorithm: Any = None, *, deterministic: bool) -> None:
        self._policy, self._deterministic = policy, deterministic
        self._algorithm = algorithm if hasattr(algorithm, "gae_lambda") else None
        self._critic: Any = getattr(self._algorithm, "critic", None)
        self._squashes: bool | None = None
        self.networks = networks_in([policy, self._critic])

    @classmethod
    def of(cls, policy: Any, *, deterministic: bool) -> TianshouPolicy | None:
        """Returns the policy of an object that is a policy, an algorithm, or a method that acts; else None."""
        owner = owner_of(policy, "compute_action", "forward")
        if _is_policy(owner):
            return cls(owner, deterministic=deterministic)
        inner = getattr(owner, "policy", None)
        if isinstance(owner, nn.Module) and has_no_forward(owner) and _is_policy(inner):
            return cls(inner, owner, deterministic=deterministic)
        return None

    def __call__(self, observations: Any, state: Any = None) -> Mapping[str, Any]:
        """Acts; see :class:`rlwandb_callbacks.policies.adapters.library_policy.LibraryPolicy`."""
        result = self._ask(observations, state, deterministic=self._deterministic)
        action = to_numpy(self._policy.map_action(result.act))
        if not isinstance(self._policy.action_space, spaces.Box):
            action = action.astype(np.int64)
        output = {"action": action, "state": _as_dict(getattr(result, "state", None))}
        if self._critic is not None:
            output["value"] = self._value(self._critic(observations))
        distribution = getattr(result, "dist", None)
        if isinstance(distribution, Distribution):
            output["distribution"] = self._mapped(distribution, result, observations, state)
        elif has_methods(self._policy, "compute_q_value"):
            output["q_values"] = self._q_values(result)
        return output

    def _ask(self, observations: Any, state: Any, *, deterministic: bool) -> Any:
        batch = _batch_class()(obs=observations, info={})
        values = {"deterministic_eval": deterministic, "is_within_training_step": False}
        with replaced_attributes(self._policy, **values):
            return self._policy(batch, state)

    def _value(self, value: Any) -> Any:
        """Returns V(s) in the scale of returns, as the critic may learn them divided by their standard deviation."""
        algorithm: Any = self._algorithm
        return value * float(np.sqrt(algorithm.ret_rms.var)) if getattr(algorithm, "return_scaling", False) else value

    def _q_values(self, result: Any) -> Any:
        if isinstance(found := getattr(result, "q_value", None), torch.Tensor):
            return found
        logits, fractions = result.logits, getattr(result, "fractions", None)
        if fractions is not None:  # of a fully parameterized quantile function
            return (logits * fractions.taus.diff(dim=1).unsqueeze(1)).sum(dim=2)
        return self._policy.compute_q_value(logits, None)

    def _mapped(self, distribution: Distribution, result: Any, observations: Any, state: Any) -> Distribution | None:
        """Returns the distribution of the action that ``map_action`` returns; None if it is not known."""
        space = self._policy.action_space
        if not isinstance(space, spaces.Box):
            return distribution
        base = distribution.base_dist if isinstance(distribution, Independent) else distribution
        if not isinstance(base, Normal):
            return None
        if self._squashes is None:
            if not self._deterministic:
                result = self._ask(observations, state, deterministic=True)
            self._squashes = _is_squashed(result.act, base.mean)
        has_correction = hasattr(result, "log_prob")  # for the squashing
        is_squashed = has_correction if self._squashes is None else self._squashes
        squashes = is_squashed or self._policy.action_bound_method == "tanh"
        if self._policy.action_scaling:
            return scaled_normal(base, space.low, space.high, squashes=squashes)
        ones = np.ones(space.shape, dtype=np.float32)
        return scaled_normal(base, -ones, ones, squashes=True) if squashes else base


def _is_policy(candidate: Any) -> bool:
    return has_methods(candidate, "map_action", "compute_action") and hasattr(candidate, "action_space")


def _is_squashed(action: Any, mean: torch.Tensor) -> bool | None:
    """Returns whether the most likely action is the tanh of the Gaussian's mean; None if the mean is almost 0."""
    played, raw = to_numpy(action), to_numpy(mean)
    if np.abs(raw).max() < 0.01:
        return None
    return bool(np.abs(played - np.tanh(raw)).max() < np.abs(played - raw).max())


def _batch_class() -> Any:
    return getattr(sys.modules.get("tianshou.data"), "Batch", SimpleNamespace)


def _as_dict(state: Any) -> Any:
    """Returns a state as tensors, or as a dict of them; None if it is empty."""
    if state is None or isinstance(state, torch.Tensor | np.ndarray | tuple):
        return state
    entries = {name: _as_dict(value) for name, value in state.items()}
    return entries or None
