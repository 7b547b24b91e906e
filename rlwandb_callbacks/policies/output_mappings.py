"""Reads mappings, such as dicts and TensorDicts, with actions, scores, values or moments by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces

from rlwandb_callbacks.core.episode import Floats, Gaussian, PolicyStep
from rlwandb_callbacks.policies.output_actions import action_batch
from rlwandb_callbacks.policies.output_steps import StepBuilder
from rlwandb_callbacks.policies.output_tensors import is_array, to_numpy
from rlwandb_callbacks.policies.output_tuples import (
    ACTION_KEYS,
    CHOSEN_Q_KEYS,
    DISTRIBUTION_KEYS,
    LOG_STD_KEYS,
    MEAN_KEYS,
    Q_KEYS,
    STD_KEYS,
    VALUE_KEYS,
)


@dataclass(frozen=True)
class MappingReader:
    """Converts mappings to actions and scores.

    Args:
        builder: Makes the steps.
        read_distribution: Reads the output below a key for distributions, given the number of states.
    """

    builder: StepBuilder
    read_distribution: Callable[[Any, int], PolicyStep | None]

    def read(self, output: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        """Converts a mapping for ``batch_size`` states; returns None if it cannot be read."""
        whole = self.builder.from_compound_actions(output, batch_size)
        if whole is not None:
            return whole
        scored = self._from_named_scores(output, batch_size)
        action = _first(output, ACTION_KEYS)
        actions = None if action is None else action_batch(self.builder.action_space, action, batch_size)
        is_sampled_here = actions is None and not self.builder.deterministic
        if actions is None:
            if scored is None:
                return None
            actions = scored.actions
        chosen_q = self._q_of(actions, output, batch_size)
        if chosen_q is None and not is_sampled_here:  # a sample made here is not the action that the critic rated
            chosen_q = numbers_per_state(output, CHOSEN_Q_KEYS, batch_size)
        values = numbers_per_state(output, VALUE_KEYS, batch_size)
        return PolicyStep(actions, None if scored is None else scored.scores, values, chosen_q)

    def _q_of(self, actions: Any, output: Mapping[Any, Any], batch_size: int) -> Floats | None:
        q_values = _first(output, Q_KEYS)
        if self.builder.categorical is None or q_values is None:
            return None
        split = self.builder.categorical.split_scores(_as_arrays(q_values), batch_size, "q_values")
        return None if split is None else self.builder.categorical.q_of(actions, split)

    def _from_named_scores(self, output: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        for meaning, scores in self._named_scores(output).items():
            step = None if scores is None else self.builder.from_scores(_as_arrays(scores), batch_size, meaning)
            if step is not None:
                return step
        distribution = _first(output, DISTRIBUTION_KEYS)
        if distribution is not None:
            return self.read_distribution(distribution, batch_size)
        return (
            self._from_loc_and_scale(output, batch_size) if isinstance(self.builder.action_space, spaces.Box) else None
        )

    def _named_scores(self, output: Mapping[Any, Any]) -> dict[str, Any]:
        named = {"q_values": _first(output, Q_KEYS), "probs": output.get("probs"), "logits": output.get("logits")}
        has_policy = _first(output, ("probs", "logits", *DISTRIBUTION_KEYS)) is not None
        if self.builder.action_logger == "action_probability" and has_policy:
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
        step = self.builder.from_moments(mean, std, batch_size)
        if step is None or not has_action or not isinstance(step.scores, Gaussian):
            return step
        return replace(step, scores=replace(step.scores, entropy=np.full(batch_size, np.nan)))


def _first(output: Mapping[Any, Any], keys: Sequence[str]) -> Any:
    """Returns the value of the first key that has one; None if none has."""
    return next((output[key] for key in keys if output.get(key) is not None), None)


def _as_arrays(scores: Any) -> Any:
    """Converts lists of numbers to an array; a list with a tensor per dimension stays as it is."""
    is_split = isinstance(scores, list | tuple) and all(map(is_array, scores))
    return scores if is_split else to_numpy(scores)


def numbers_per_state(output: Mapping[Any, Any], keys: Sequence[str], batch_size: int) -> Floats | None:
    """Reads one number per state, ``[B]`` or ``[B, 1]``, from the first key with that many numbers."""
    for key in keys:
        values = None if output.get(key) is None else to_numpy(output[key])
        if values is not None and values.size == batch_size:
            return values.astype(np.float64).reshape(batch_size)
    return None
