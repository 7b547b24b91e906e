"""Reads mappings, such as dicts and TensorDicts, with actions, scores, values or moments by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces

from rlwandb_callbacks.core.episode import Floats, Gaussian, PolicyStep
from rlwandb_callbacks.policies.action_extremes import ActionExtremes
from rlwandb_callbacks.policies.output_actions import action_batch
from rlwandb_callbacks.policies.output_steps import StepBuilder
from rlwandb_callbacks.policies.output_tensors import as_arrays, is_array, to_numpy
from rlwandb_callbacks.policies.output_tuples import (
    ACTION_KEYS,
    CHOSEN_Q_KEYS,
    DISTRIBUTION_KEYS,
    LOG_STD_KEYS,
    MEAN_ACTION_KEYS,
    MEAN_KEYS,
    MODE_KEYS,
    NET_OUTPUT_KEY,
    Q_KEYS,
    SCORE_KEYS,
    STD_KEYS,
    VALUE_KEYS,
)


@dataclass(frozen=True)
class MappingReader:
    """Converts mappings to actions and scores.

    Args:
        builder: Makes the steps.
        read_distribution: Reads the output below a key for distributions, given the number of states.
        read_scores: Reads scores of an assumed meaning, given the number of states and that meaning.
    """

    builder: StepBuilder
    read_distribution: Callable[[Any, int], PolicyStep | None]
    read_scores: Callable[[Any, int, str], PolicyStep | None]

    def read_sample(self, output: Sequence[Any], batch_size: int) -> PolicyStep | None:
        """Reads a sample of the actions that is followed by a mapping with the mode or the scores of its distribution.

        The models of skrl return ``(sample, {"mean_actions": …})`` or ``(sample, {"net_output": …})``, those of skrl 1
        with the log-probability between them. A deterministic builder takes the mode. Returns None for other outputs.
        """
        if len(output) < 2 or not is_array(output[0]) or not isinstance(output[-1], Mapping):
            return None
        sample, extras = to_numpy(output[0]), output[-1]
        has_scores = _first(extras, (*MODE_KEYS, *SCORE_KEYS)) is not None
        if not has_scores or action_batch(self.builder.action_space, sample, batch_size) is None:
            return None
        log_prob = {"log_prob": output[1]} if is_array(output[1]) else {}
        return self._read({**log_prob, **extras, "action": sample}, batch_size, is_sample=True)

    def read(self, output: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        """Converts a mapping for ``batch_size`` states; returns None if it cannot be read."""
        whole = self.builder.from_compound_actions(output, batch_size)
        return self._read(output, batch_size) if whole is None else whole

    def _read(self, output: Mapping[Any, Any], batch_size: int, *, is_sample: bool = False) -> PolicyStep | None:
        """Converts a mapping whose action may be a sample, which a deterministic builder replaces by the mode."""
        scored = self._from_named_scores(output, batch_size)
        action = _first(output, ACTION_KEYS)
        mode = _first(output, MODE_KEYS) if self.builder.deterministic or (action is None and scored is None) else None
        if mode is None and is_sample and scored is not None and self._takes_mode_of_scores(output):
            mode = scored.actions
        is_replaced = action is not None and mode is not None
        action = action if mode is None else mode
        actions = None if action is None else self.builder.actions_of(action, batch_size)
        is_sampled_here = actions is None and not self.builder.deterministic
        if actions is None:
            if scored is None:
                return None
            actions = scored.actions
        chosen_q = self._q_of(actions, output, batch_size)
        if chosen_q is None and not (is_sampled_here or is_replaced):  # the critic rated another action
            chosen_q = numbers_per_state(output, CHOSEN_Q_KEYS, batch_size)
        values = numbers_per_state(output, VALUE_KEYS, batch_size)
        return PolicyStep(actions, None if scored is None else scored.scores, values, chosen_q)

    def _takes_mode_of_scores(self, output: Mapping[Any, Any]) -> bool:
        """Returns whether the actions of the scores are modes, and not means of actions before a tanh."""
        has_mode = self.builder.categorical is not None or _first(output, DISTRIBUTION_KEYS) is not None
        return self.builder.deterministic and has_mode

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
        if output.get(NET_OUTPUT_KEY) is not None and (step := self._from_net_output(output, batch_size)) is not None:
            return step
        distribution = _first(output, DISTRIBUTION_KEYS)
        if distribution is not None:
            return self.read_distribution(distribution, batch_size)
        return (
            self._from_loc_and_scale(output, batch_size) if isinstance(self.builder.action_space, spaces.Box) else None
        )

    def _from_net_output(self, output: Mapping[Any, Any], batch_size: int) -> PolicyStep | None:
        """Reads logits or probabilities, whichever have the log-probability of the action that is beside them."""
        space, net_output = self.builder.categorical, as_arrays(output[NET_OUTPUT_KEY])
        columns = None if space is None else space.split_scores(net_output, batch_size, "logits")
        actions, log_prob = _first(output, ACTION_KEYS), output.get("log_prob")
        if space is None or columns is None or actions is None or log_prob is None:
            return self.read_scores(net_output, batch_size, "logits")
        actions = self.builder.actions_of(actions, batch_size)
        meaning = None if actions is None else space.meaning_by_log_prob(columns, actions, to_numpy(log_prob))
        if meaning is None:
            return self.read_scores(net_output, batch_size, "logits")
        return self.builder.from_scores(net_output, batch_size, meaning)

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
        is_of_actions = _first(output, MEAN_ACTION_KEYS) is not None
        if output.get("loc") is None and has_action and not is_of_actions:
            return None
        std = np.exp(to_numpy(log_std).astype(np.float64)) if std is None else std
        builder = replace(self.builder, extremes=ActionExtremes()) if has_action and not is_of_actions else self.builder
        step = builder.from_moments(mean, std, batch_size)
        if step is None or not has_action or is_of_actions or not isinstance(step.scores, Gaussian):
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
